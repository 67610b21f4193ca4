"""How fast the explorer answers, on one core: seconds of processor time, printed as a table.

    python bench/explore.py

A row says what is asked of it and whether it holds; the exit status is 1 if one does not. Processor time of one thread
is what an idle core would take.
"""
import os, sys, time
os.environ.update(OMP_NUM_THREADS='1', TQDM_DISABLE='1')
import torch
torch.set_num_threads(1)
from u1nb.explore import Move, look_at, shown

def fastest(f, n=7):
    "Processor milliseconds of the fastest of n turns"
    def turn():
        t = time.process_time(); f(); return 1000*(time.process_time()-t)
    return min(turn() for _ in range(n))

def main(net='mobilenet_v2', picture='rocket'):
    moves = iter(Move(x=k/100, turn=5) for k in range(1, 100))
    def cached():
        look_at.cache_clear()
        shown(net, picture, move=Move(turn=60))
    shown(net, picture, move=Move(turn=60))
    rows = [('a picture whose forward pass is cached: measured, drawn, as a file', fastest(cached), 200),
            ('the same, moved anew: with the forward pass',
              fastest(lambda: shown(net, picture, move=next(moves))), None)]
    for what,ms,most in rows:
        asked = f'≤ {most} ms  {"ok" if ms<=most else "MISSED"}' if most else ''
        print(f'{what:<70} {ms:6.0f} ms  {asked}')
    return all(most is None or ms<=most for _,ms,most in rows)

if __name__=='__main__': sys.exit(not main())
