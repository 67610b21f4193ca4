"""Jobs in turn, shared among processes: trials.py and trained.py hand out theirs here. Not a benchmark.

A job is a dict. What earlier calls left is not run again, and a call that is cut loses one job a process.
"""
import argparse, json, os, time
from pathlib import Path
import torch
from u1nb.core import Results, append_line, replacing

def parser(doc):
    "The options that both scripts have"
    p = argparse.ArgumentParser(description=doc.splitlines()[0])
    p.add_argument('--out', required=True, help='folder for the rows')
    p.add_argument('--minutes', type=float, default=60, help='after so many no job is begun')
    p.add_argument('--processes', type=int, default=2)
    p.add_argument('--device', default=None)
    return p

def begin(out, minutes):
    "The folder, and when to stop. Threads first: the processes are forked, and OpenMP's threads are not"
    torch.set_num_threads(1)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    return out,time.time()+60*minutes

def name_of(it):
    "What a job and its rows have in common"
    return it.get('job') or json.dumps(it, sort_keys=True)

def work(jobs, run, args, file, until):
    "Every job of a share until time is up; the rows of each in a file of their own, whole or not at all"
    torch.backends.cudnn.benchmark = True
    for k,job in enumerate(jobs):
        if time.time()>until: return
        with replacing(file.with_suffix(f'.{os.getpid()}-{k:05}.part')) as part:
            part.write_text(''.join(json.dumps(r)+'\n' for r in run(job, *args)), encoding='utf-8')

def gather(file, name):
    "The rows of a file, with those that processes left beside it"
    rows = list(Results.load(file)) if file.exists() else []
    for p in sorted(file.parent.glob(f'{file.stem}.*.part')):
        there = {name(r) for r in rows}
        new = [r for r in Results.load(p) if name(r) not in there]
        append_line(file, ''.join(json.dumps(r)+'\n' for r in new).encode())
        rows += new
        p.unlink()
    return rows

def in_turn(jobs, run, args, file, until, processes, name=name_of):
    "The rows of all jobs, those of earlier calls included, and are all there? `run(job, *args)` makes rows"
    there = {name(r) for r in gather(file, name)}
    todo = [j for j in jobs if name(j) not in there]
    ctx = torch.multiprocessing.get_context('fork')
    ps = [ctx.Process(target=work, args=(todo[k::processes], run, args, file, until)) for k in range(processes)]
    for p in ps: p.start()
    for p in ps: p.join()
    rows = gather(file, name)
    left = len({name(j) for j in todo}-{name(r) for r in rows})
    print(f'{file.name}: {len(rows)} rows, {len(todo)} jobs were open, {left} are', flush=True)
    if bad:=[p.exitcode for p in ps if p.exitcode]:
        raise SystemExit(f'{len(bad)} processes failed; their errors stand above')
    return rows,not left
