"""Everything that trains, in order of value, within the minutes given: whole tasks on a GPU, else the small ones.

    U1NB_DATA=data python bench/experiments.py --minutes 50

Run again, it goes on: a step that ended is passed over, one that was cut continues from its rows, in nbs/results/.
"""
import argparse, subprocess, sys, time
from pathlib import Path
import torch

ROOT = Path(__file__).parents[1]
RESULTS = {k:f'nbs/results/{v}' for k,v in
           {54:'54_whole_cifar10', 57:'57_padding_from_birth', 59:'59_where_u1_could_show'}.items()}

def steps(gpu, processes):
    "Command lines; those that take `--minutes` may be cut"
    def script(name, *words, out):
        return [f'bench/{name}.py', *words, '--out', RESULTS[out], '--processes', str(processes)]
    if not gpu: return [script('trained', 'padding', out=57), script('trained', 'u1', out=59)]
    return [['-m','pytest','-q','tests/test_gpu.py'], ['bench/train.py','--only','gpu'], script('trials', out=54),
            script('trained', 'u1', '--whole', out=59), script('trained', 'padding', '--whole', out=57)]

def main(minutes, processes):
    gpu,until,failed = torch.cuda.is_available(),time.time()+60*minutes,[]
    for words in steps(gpu, processes or (6 if gpu else 2)):
        left = (until-time.time())/60
        if left<=0: break
        more = ['--minutes',f'{left:.1f}']*('--out' in words)
        print(f'{left:.0f} minutes left: {" ".join(words)}', flush=True)
        if subprocess.run([sys.executable, *words, *more], cwd=ROOT).returncode: failed.append(' '.join(words))
    if failed: raise SystemExit('failed: '+'; '.join(failed))

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--minutes', type=float, default=50)
    p.add_argument('--processes', type=int, help='6 that share a GPU, 2 without one')
    main(**vars(p.parse_args()))
