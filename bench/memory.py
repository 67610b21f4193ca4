"""How fast the memory finds neighbours, and what memory that takes: ratios within one process, printed as a table.

    python bench/memory.py                     all of it, some minutes on 2 cores
    python bench/memory.py --only search       one of search, memory, map, sites
    python bench/memory.py --scale .5          fewer rows and queries, in proportion; sizes are those of --scale 1

Each pair of candidates takes turns; the ratio is of their fastest turns. A row says what is asked of it and whether
it holds; the exit status is 1 if one does not. Indexes are built before. In `map` both sides begin with the maps
(Q,C,7,7): FAISS's 49 searches take out and normalise each site's vectors, by numpy and faiss.normalize_L2. So they do
in `sites`, where the memory is made or the index filled within the turn.
"""
import argparse, subprocess, sys, warnings
import numpy as np, torch
from torch.nn.functional import normalize
warnings.simplefilter('ignore')
from extract import ROWS, row, turns

from u1nb.core import generator
from u1nb.memory import Memory, informative

def vectors(n, D, seed=0, K=101):
    "Positive vectors about K centres, as pooled activations are"
    g = generator(seed, 'bench')
    centres = torch.rand(K, D, generator=generator(0, 'centres'))
    return centres[torch.randint(K, (n,), generator=g)]+torch.rand(n, D, generator=g)

def peak(field='VmHWM'): return int(next(l for l in open('/proc/self/status') if l.startswith(field)).split()[1])/1024

def search(scale):
    "Exact neighbours against a flat FAISS index and scikit-learn's brute force, and that they are the same"
    import faiss
    from sklearn.neighbors import NearestNeighbors
    M,Q,D = int(50_000*scale), int(3_000*scale), 1280
    x,q = vectors(M, D),vectors(Q, D, 1)
    m = Memory().add(x, torch.arange(M)%101)
    ux,uq = normalize(x).numpy(),normalize(q).numpy()
    flat = faiss.IndexFlatIP(D); flat.add(ux)
    a,b = turns(lambda: m.neighbours(q), lambda: flat.search(uq, 10))
    print(f'M={M:,}, Q={Q:,}, D={D}, {torch.get_num_threads()} threads: ours {a:.2f} s, IndexFlatIP {b:.2f} s')
    row('exact search against faiss.IndexFlatIP', b/a, least=.95)
    sk = NearestNeighbors(n_neighbors=10, algorithm='brute', metric='cosine').fit(x.numpy())
    a,b = turns(lambda: m.neighbours(q), lambda: sk.kneighbors(q.numpy()), n=2)
    print(f'ours {a:.2f} s, scikit-learn {b:.2f} s')
    row("exact search against scikit-learn's brute-force neighbours", b/a, least=1.5)
    few = slice(0, 200)
    want = (normalize(q[few].double())@normalize(x.double()).T).topk(10).indices.tolist()
    same = [len(set(a)&set(b))/10 for a,b in zip(m.neighbours(q[few])[1].tolist(), want)]
    row('share of neighbours that are those of a float64 brute force', float(np.mean(same)), least=.999, unit='')

def extra(scale):
    "Peak memory of a search above that of the memory and the queries, in MB (runs in a process of its own)"
    M,Q,D = int(50_000*scale), int(3_000*scale), 1280
    m,q = Memory(),vectors(Q, D, 1)
    for i in range(0, M, 1000): m.add(vectors(1000, D, i), torch.arange(1000)%101)
    m.neighbours(q[:32])                                      # libraries are loaded
    before = peak('VmRSS')
    open('/proc/self/clear_refs', 'w').write('5')             # the peak starts anew
    m.neighbours(q); m.votes(q)
    print(peak()-before)

def memory(scale):
    child = [sys.executable, __file__, '--extra', '--scale', str(scale)]
    said = subprocess.run(child, capture_output=True, text=True, check=True).stdout
    row('extra memory of a search, MB', float(said.split()[-1]), most=256, unit=' MB')

def accuracy_map(scale):
    "The accuracy map of 7×7 sites against 49 flat FAISS searches of the same rows"
    import faiss
    M,Q,C = int(10_000*scale), int(10_000*scale), 1280
    y,t = torch.arange(M)%101, torch.arange(Q)%101
    x,q = (torch.rand(n, C, 7, 7, generator=generator(i, 'map')) for i,n in enumerate((M, Q)))
    m = Memory('site').add(x, y)
    ux,maps = m.vectors.flatten(1, 2).transpose(0, 1),q.flatten(2).numpy()
    def flat():
        sites = np.ascontiguousarray(maps.transpose(2, 0, 1))
        for f,v in zip(flats, sites): faiss.normalize_L2(v); f.search(v, 10)
    flats = []
    for s in range(49):
        flats.append(faiss.IndexFlatIP(C))
        flats[-1].add(ux[s].contiguous().numpy())
    a,b = turns(lambda: m.score(q, t).map, flat, n=2)
    print(f'M={M:,}, Q={Q:,}, C={C}: ours {a:.1f} s, 49 flat searches {b:.1f} s')
    row('accuracy map of 7×7 sites against 49 flat FAISS searches', b/a, least=1)

def sites(scale):
    "Class-informative sites against a flat FAISS index of all sites, and that the neighbours are the same"
    import faiss
    M,Q,C = int(1000*scale), int(400*scale), 1280
    x,q = (torch.rand(n, C, 7, 7, generator=generator(i, 'sites')) for i,n in enumerate((M, Q)))
    y,t = torch.arange(M)%101, torch.arange(Q)%101
    def rows(maps):
        v = np.ascontiguousarray(maps.flatten(2).mT.flatten(0, 1).numpy()); faiss.normalize_L2(v)
        return v
    def flat():
        index = faiss.IndexFlatIP(C); index.add(rows(x))
        return index.search(rows(q), 1)[1][:,0]
    a,b = turns(lambda: informative(q, t, x, y), flat, n=2)
    print(f'{M*49:,} sites, {Q*49:,} queries, C={C}: ours {a:.2f} s, IndexFlatIP {b:.2f} s')
    row('informative sites against faiss.IndexFlatIP', b/a, least=.75)         # the products are the same
    o = informative(q, t, x, y)
    same = ((o.neighbour*49+o.site).flatten().numpy()==flat()).mean()
    row('share of sites with the neighbour that FAISS finds', float(same), least=.999, unit='')

PARTS = {'search':search, 'memory':memory, 'map':accuracy_map, 'sites':sites}

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', choices=PARTS)
    p.add_argument('--scale', type=float, default=1.)
    p.add_argument('--extra', action='store_true', help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.extra: extra(a.scale)
    else:
        for n,f in PARTS.items():
            if a.only in (None, n): f(a.scale)
        sys.exit(not all(ROWS))
