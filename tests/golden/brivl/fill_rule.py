"""Weights and inputs of the BriVL goldens, drawn from their names: the rule that the outputs here were made with."""
import zlib, numpy as np
def raw(key, shape):
    g=np.random.Generator(np.random.PCG64(zlib.crc32(key.encode('utf-8'))))
    return g.standard_normal(tuple(shape)).astype(np.float32)
def fill(key, shape, gain):
    shape=tuple(shape); last=key.rsplit('.',1)[-1]
    if last=='num_batches_tracked': return np.zeros(shape,np.int64)
    if last=='position_ids': return np.arange(shape[-1],dtype=np.int64).reshape(shape)
    n=raw(key,shape)
    if last=='running_mean': return n*np.float32(0.1)
    if last=='running_var': return np.abs(n)+np.float32(0.5)
    if len(shape)>=2: return n*np.float32(np.sqrt(gain/float(np.prod(shape[1:]))))
    if last=='weight': return n*np.float32(0.1)+np.float32(1.0)
    return n*np.float32(0.1 if '.bn' in key else 0.01)
def image(seed, S, g):
    lo=raw(seed+':lo',(3,g,g)); hi=raw(seed+':hi',(3,S,S))
    idx=(np.arange(S)*g)//S
    return lo[:,idx][:,:,idx]+np.float32(0.3)*hi
def boxes(seed, n, S):
    """n random boxes in resized-image pixel coordinates, then nothing else."""
    g=np.random.Generator(np.random.PCG64(zlib.crc32(seed.encode('utf-8'))))
    u=g.random((n,4)); x=np.sort(u[:,[0,2]],1); y=np.sort(u[:,[1,3]],1)
    b=np.stack([x[:,0],y[:,0],x[:,1],y[:,1]],1)*S
    return b.astype(np.float32)
