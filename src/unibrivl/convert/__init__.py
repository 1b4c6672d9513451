"""Original checkpoints -> safetensors folders of ours, read without executing anything and checked key by key."""
