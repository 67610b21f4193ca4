"""What the U(1) term costs, and what `fit` costs beside a plain loop: ratios within one process, printed as a table.

    make bench                              all of it, some minutes on 2 cores
    python bench/train.py --only term       one of term, loop, gpu

The two candidates of a row take turns, step by step (term) or epoch by epoch (loop). `gpu` runs where there is one, and
holds the fast network against the best public code for the same network, airbench94.py of
github.com/KellerJordan/cifar10-airbench: 94.01 % on CIFAR-10 in 3.83 s for 9.9 epochs on one NVIDIA A100 (400 W,
torch 2.4.1, not compiled), which is 129,000 pictures a second. The exit status is 1 if a row misses what is asked.
"""
import argparse, os, statistics, time
import torch
from torch import nn
os.environ.setdefault('TQDM_DISABLE', '1')
from extract import ROWS, row, turns
from u1nb.core import generator
from u1nb.loss import OneHotU1Loss, U1Head, U1Loss, attach_u1, class_angles
from u1nb.nets import build
from u1nb.train import Pictures, Resident, fit

AIRBENCH94 = 9.9*50_000/3.83   # pictures a second, on an A100

def pictures(n, size=32, seed=0):
    g = generator(seed, 'bench')
    x = torch.randint(0, 256, (n,size,size,3), generator=g, dtype=torch.uint8)
    return Pictures(x, torch.randint(0, 10, (n,), generator=g), list('0123456789'))

def steps(device, batch, n, precision=None):
    "Seconds of n steps of ResNet-18 without and with the U(1) term, which take turns on one network"
    net = attach_u1(build('resnet18', 10, 32), size=32).to(device, memory_format=torch.channels_last).train()
    plain,both = nn.CrossEntropyLoss(),OneHotU1Loss(class_angles(10), .1).to(device)
    opt = torch.optim.SGD(net.parameters(), .01, momentum=.9)
    g = generator(0, 'steps')
    x = torch.randn(batch, 3, 32, 32, generator=g).to(device, memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,), generator=g).to(device)
    def step(u):
        with torch.autocast(device, precision, enabled=precision is not None):
            l = both(*net(x, u1=True), y) if u else plain(net(x), y)
        opt.zero_grad(); l.backward(); opt.step()
        if device=='cuda': torch.cuda.synchronize()
    took = ([],[])
    for k in range(n+3):
        for u in ((0,1),(1,0))[k%2]:
            t = time.perf_counter(); step(u)
            if k>=3: took[u].append(time.perf_counter()-t)
    return took

def alone(device, batch, n=200):
    "Seconds of the term by itself, forward and backward: the head on the bottleneck, the loss"
    head,loss,g = U1Head(512).to(device),U1Loss(class_angles(10), 'von_mises').to(device),generator(0, 'alone')
    acts = torch.randn(batch, 512, 4, 4, generator=g).to(device, memory_format=torch.channels_last).requires_grad_()
    y = torch.randint(0, 10, (batch,), generator=g).to(device)
    took = []
    for _ in range(n):
        t = time.perf_counter(); loss(head(acts), y).backward()
        if device=='cuda': torch.cuda.synchronize()
        took.append(time.perf_counter()-t)
    return statistics.median(took)

def term():
    "The U(1) term on the CPU, beside a step and alone, since steps differ by several per cent from one to the next"
    a,b = steps('cpu', 64, 25)
    r = [y/x for x,y in zip(a, b)]
    se = 1.25*statistics.stdev(r)/len(r)**.5
    print(f'ResNet-18, 64 pictures of 32 pixels, {torch.get_num_threads()} threads: '
          f'{1e3*statistics.median(a):.0f} ms a step')
    ratio,extra = statistics.median(b)/statistics.median(a),alone('cpu', 64)/statistics.median(a)
    print(f'25 interleaved steps: ratio of medians {ratio:.3f}, standard error {se:.3f}')
    row('U(1) term on a ResNet-18 step: the step and the term alone, by the step', 1+extra, most=1.01)
    row('the same from the interleaved medians, less two standard errors', ratio-2*se, most=1.01)

def loop():
    "fit against the loop that anyone would write: same network, pictures, order, optimiser, float32"
    p = pictures(1024)
    data = Resident(p, 64, seed=1)
    x,y = torch.cat([b.x for b in Resident(p, 512, like=data).epoch()]).contiguous(),p.y
    def plain(name, format):
        net = build(name, 10, 32).to(memory_format=format).train()
        opt = torch.optim.SGD(net.parameters(), .1, momentum=.9, nesterov=True, weight_decay=5e-4)
        for i in torch.randperm(len(x)).split(64):
            opt.zero_grad()
            nn.functional.cross_entropy(net(x[i].contiguous(memory_format=format)), y[i]).backward()
            opt.step()
    for name in ('fastnet_small','resnet20'):
        def ours(): fit(build(name, 10, 32), data, epochs=1, device='cpu', progress=False)
        a,b,c = turns(ours, lambda: plain(name, torch.contiguous_format), lambda: plain(name, torch.channels_last), n=4)
        print(f'{name}: fit {1024/a:.0f} pictures/s; the plain loop {1024/b:.0f}, channels last {1024/c:.0f}')
        row(f'fit against the plain loop, {name}', b/a, least=1)
        row(f'fit against the plain loop with channels last, {name}', c/a)

def gpu():
    "The term, and the fast network's throughput, on a GPU"
    if not torch.cuda.is_available(): return print('gpu: there is none here; not measured')
    name = torch.cuda.get_device_name()
    a,b = steps('cuda', 512, 100, torch.bfloat16)
    row(f'U(1) term on a ResNet-18 step, {name}, bf16, batch 512', statistics.median(b)/statistics.median(a), most=1.02)
    data = Resident(pictures(50_000), 1000, flip=True, translate=2)
    f = fit(build('fastnet', 10, 32), data, epochs=6, precision='bf16', progress=False)
    best = max(r['pictures_per_second'] for r in f.rows)
    print(f'fastnet, {name}: {best:,.0f} pictures/s; airbench94.py on an A100: {AIRBENCH94:,.0f}')
    row('fastnet against airbench94.py (comparable on an A100 only)', best/AIRBENCH94, least=.9)

if __name__=='__main__':
    p = argparse.ArgumentParser(); p.add_argument('--only', choices=('term','loop','gpu'))
    a = p.parse_args()
    for f in (term, loop, gpu):
        if a.only in (None, f.__name__): f()
    raise SystemExit(not all(ROWS))
