"""How fast `observe` is, and what memory it takes: ratios within one process, printed as a table.

    make bench                                 all of it, some minutes on 2 cores
    python bench/extract.py --only plain       one of plain, extractors, memory, decode, import

Each pair of candidates takes turns; the ratio is of their fastest turns. A row says what is asked of it and whether it
holds; the exit status is 1 if one does not.
"""
import argparse, os, subprocess, sys, tempfile, time, warnings
from pathlib import Path
os.environ.setdefault('TQDM_DISABLE', '1')      # before anything imports tqdm, as torch does
import torch
warnings.simplefilter('ignore')

from u1nb.core import generator
from u1nb.data import images
from u1nb.energy import EnergyMap
from u1nb.extract import activations, fast_twin, observe
from u1nb.models import pretrained

ROWS = []

def row(what, value, least=None, most=None, unit='×'):
    "Print and keep a row of the table"
    asked = f'≥ {least}{unit}' if least is not None else f'≤ {most}{unit}' if most is not None else ''
    ok = (least is None or value>=least) and (most is None or value<=most)
    ROWS.append(ok)
    print(f'{what:<104} {value:>9.3g}{unit:<4} {asked:<12} {"ok" if ok else "MISSED"}', flush=True)

def turns(*fs, n=4):
    "Fastest of n turns of each, interleaved, after a warm-up"
    for f in fs: f()
    best = [float('inf')]*len(fs)
    for _ in range(n):
        for i,f in enumerate(fs):
            t = time.perf_counter(); f(); best[i] = min(best[i], time.perf_counter()-t)
    return best

def pictures(n, seed=0): return torch.randn(n, 3, 224, 224, generator=generator(seed, 'bench'))

def decoded(net, tfm, n):
    "Real pictures, decoded and transformed"
    ds = images('photos', n=n)
    return torch.stack([tfm(ds[i][0]) for i in range(n)])

def plain():
    "observe with EnergyMap against the plain loop, quiet and beside two busy processes; both see the same activations"
    net,tfm = pretrained('mobilenet_v2')
    x = decoded(net, tfm, 256)
    def loop():
        with torch.inference_mode():
            for o in x.split(64): net.features(o)
    for where,others,least in (('', 0, 6.5), (', beside two busy processes', 2, 5)):
        busy = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(others)]
        try: a,b = turns(lambda: observe(net, x, 'features', EnergyMap(), device='cpu'), loop, n=3)
        finally:
            for p in busy: p.kill()
        print(f'plain loop {256/b:.1f} pictures/s, observe {256/a:.1f} pictures/s{where}, '
              f'{torch.get_num_threads()} threads')
        row(f'observe + EnergyMap against the plain loop (batch 64, default memory format){where}', b/a, least=least)
    with torch.inference_mode(): want = net.features(x[:16])
    got = activations(fast_twin(net, x[:1], 'features')[0], x[:16], 'features')['features']
    apart = float((got-want).abs().max()/want.abs().max())
    row('largest difference of the activations, relative to the largest', apart, most=1e-4, unit='')

def extractors():
    "Against torchvision's and timm's feature extraction, on the same layer of the same network"
    import timm
    from torchvision.models.feature_extraction import create_feature_extractor
    net,_ = pretrained('mobilenet_v2')
    x = pictures(128)
    fx = create_feature_extractor(net, ['features.18'])
    tm = timm.create_model('mobilenetv2_100', pretrained=False, features_only=True).eval()
    def run(f):
        with torch.inference_mode():
            for o in x.split(32): f(o)
    a,b = turns(lambda: observe(net, x, 'features.18', EnergyMap(), device='cpu'), lambda: run(fx), n=3)
    row("against torchvision's create_feature_extractor, batch 32", b/a, least=1)
    a,b = turns(lambda: observe(tm, x, 'blocks.6', EnergyMap(), device='cpu'), lambda: run(tm), n=3)
    row("against timm's features_only, batch 32", b/a, least=1)

class Made(torch.utils.data.Dataset):
    "n tensors, each made when asked for"
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i):
        if i>=self.n: raise IndexError(i)
        return torch.randn(3, 64, 64, generator=generator(i)), i%10

def peak(n):
    "Peak memory of a pass over n pictures, in MB (runs in a process of its own)"
    net,_ = pretrained('mobilenet_v2', weights=None)
    observe(net, Made(n), ['features.4','features'], EnergyMap(), device='cpu')
    most = next(l for l in open('/proc/self/status') if l.startswith('VmHWM'))     # ru_maxrss would be the parent's
    print(int(most.split()[1])/1024)

def memory():
    "Peak memory of 500 against 4,000 pictures"
    def peak_of(n):
        line = [sys.executable, __file__, '--peak', str(n)]
        return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()[-1])
    a,b = map(peak_of, (500,4000))
    print(f'peak {a:.0f} MB with 500 pictures, {b:.0f} MB with 4,000')
    row('more memory for 4,000 pictures than for 500', b-a, most=100, unit=' MB')

def decode():
    "End to end from JPEG files, against what the decoded-tensor rate R and the decoding time d allow"
    net,tfm = pretrained('mobilenet_v2')
    cores = os.cpu_count()
    with tempfile.TemporaryDirectory() as d:
        src = images('photos', n=420)
        for i in range(len(src)):
            img,y = src[i]
            p = Path(d)/src.classes[y]; p.mkdir(exist_ok=True)
            img.save(p/f'{i}.jpg', quality=90)
        ds = images(d)
        x = decoded(net, tfm, 210).repeat(2,1,1,1)
        best = [float('inf')]*3
        for _ in range(8):
            n = torch.get_num_threads(); torch.set_num_threads(1)
            t = time.perf_counter()
            for i in range(0, len(ds), 2): tfm(ds[i][0])
            dec = (time.perf_counter()-t)/len(range(0, len(ds), 2))
            torch.set_num_threads(n)
            t = time.perf_counter()
            observe(net, x, 'features', EnergyMap(), device='cpu')
            one,t = (time.perf_counter()-t)/len(x),time.perf_counter()
            observe(net, ds, 'features', EnergyMap(), transform=tfm, device='cpu')
            end = (time.perf_counter()-t)/len(ds)
            best = [min(a, b) for a,b in zip(best, (one, dec, end))]
    one,dec,end = best
    print(f'fastest turns: R {1/one:.0f}/s, d {dec*1e3:.1f} ms, bound {1/(one+dec/cores):.0f}/s, '
          f'end to end {1/end:.0f}/s')
    row(f'end to end from JPEG against 1/(1/R + d/cores), {cores} cores', (one+dec/cores)/end, least=.9)

def imports():
    "Importing the energy room against importing torch"
    def t(m):
        s = time.perf_counter()
        subprocess.run([sys.executable, '-c', f'import {m}'], check=True)
        return time.perf_counter()-s
    a,b = turns(lambda: t('u1nb.energy'), lambda: t('torch'), n=5)
    row('import u1nb.energy against import torch', a/b, most=1.3)

PARTS = {'plain':plain, 'extractors':extractors, 'memory':memory, 'decode':decode, 'import':imports}

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', choices=PARTS); p.add_argument('--peak', type=int, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.peak: peak(a.peak)
    else:
        for n,f in PARTS.items():
            if a.only in (None, n): f()
        sys.exit(not all(ROWS))
