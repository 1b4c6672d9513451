"""The web page: what `unibrivl serve` opens, for people who would rather look than read.

Everything but `page.py` works without Gradio, and is plain functions and classes that tests call: `limits` (what is
taken), `hearing` and `drawing` (what the model does), `folder` (pictures to find), `studio` (a press of the button,
from sounds to what is shown), `markup` (what is shown, as HTML), `uploads` (files that come and go), `guard` (what the
server refuses).
"""
