"Processes forked from one that has imported what takes long: to be killed, stopped, and given a full disk"
import multiprocessing, os, signal, socket, time

FORKS = multiprocessing.get_context('forkserver')
FORKS.set_forkserver_preload(['torch','torchvision.models','torchvision.transforms.v2','accelerate','pandas','scipy.stats','sklearn','matplotlib.pyplot','pyarrow.parquet','u1nb.cli'])

def _do(f, args, log, env):
    fd = os.open(log, os.O_WRONLY|os.O_CREAT|os.O_TRUNC)
    for o in (1, 2): os.dup2(fd, o)
    os.environ.update(MPLBACKEND='agg', TQDM_DISABLE='1', OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', **env)
    os.environ.pop('U1NB_DATA', None)
    import torch
    torch.set_num_threads(1)
    f(*args)

def begin(f, *args, log=os.devnull, **env):
    "f(*args) in a process of its own; what it says goes into a file"
    p = FORKS.Process(target=_do, args=(f, args, str(log), env))
    p.start()
    return p

def end(*processes):
    "Exit codes; negative are those of signals"
    for p in processes: p.join(120)
    return [p.exitcode for p in processes]

def stop(processes, wait, number=signal.SIGKILL):
    "Send a signal to some processes after so many seconds, or less if they end"
    t0 = time.monotonic()
    while time.monotonic()-t0<wait and any(p.is_alive() for p in processes): time.sleep(.002)
    for p in processes: p.is_alive() and os.kill(p.pid, number)
    return end(*processes)

def ranks(f, *args, world=2):
    "f(*args) in several processes that share the work"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = dict(WORLD_SIZE=str(world), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), LOCAL_WORLD_SIZE=str(world), ACCELERATE_USE_CPU='true')
    return [begin(f, *args, RANK=str(k), LOCAL_RANK=str(k), **env) for k in range(world)]
