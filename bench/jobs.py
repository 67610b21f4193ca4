"""Jobs in turn, shared among processes: trials.py and trained.py hand out theirs here. Not a benchmark.

A job is a dict. What earlier calls left in the file is not run again, and a call that is cut loses one job a process.
"""
import json, time
import torch
from u1nb.core import Results, append_line

def name_of(it):
    "What a job and its rows have in common"
    return it.get('job') or json.dumps(it, sort_keys=True)

def work(rank, jobs, run, args, file, until):
    "Every job of a share until time is up; its rows are written together"
    torch.backends.cudnn.benchmark = True
    for job in jobs:
        if time.time()>until: return
        lines = [json.dumps(r)+'\n' for r in run(job, *args)]
        append_line(file.with_suffix(f'.{rank}.part'), ''.join(lines).encode())

def gather(file):
    "The rows of a file, what the processes of earlier calls left included"
    for p in sorted(file.parent.glob(f'{file.stem}.*.part')):
        with file.open('a', encoding='utf-8') as f: f.write(p.read_text(encoding='utf-8'))
        p.unlink()
    return list(Results.load(file)) if file.exists() else []

def in_turn(jobs, run, args, file, until, processes, name=name_of):
    "The rows of all jobs, those of earlier calls included, and are all there? `run(job, *args)` makes rows"
    there = {name(r) for r in gather(file)}
    todo = [j for j in jobs if name(j) not in there]
    ctx = torch.multiprocessing.get_context('fork')
    ps = [ctx.Process(target=work, args=(k, todo[k::processes], run, args, file, until)) for k in range(processes)]
    for p in ps: p.start()
    for p in ps: p.join()
    rows = gather(file)
    left = len({name(j) for j in todo}-{name(r) for r in rows})
    print(f'{file.name}: {len(rows)} rows, {len(todo)} jobs were open, {left} are', flush=True)
    if bad:=[p.exitcode for p in ps if p.exitcode]:
        raise SystemExit(f'{len(bad)} processes failed; their errors stand above')
    return rows,not left
