"""How fast `class_bias` is, and what memory it takes, against `scipy.stats.permutation_test` once for each statistic.

    python bench/angle.py                      all of it, under a minute on 2 cores

10,000 pictures, 200 classes, 9,999 permutations, all statistics. scipy runs the same vectorised statistics on fewer
permutations; the ratio is of the time per permutation. A row says what is asked of it and whether it holds; the exit
status is 1 if one does not.
"""
import argparse, sys, time
import numpy as np, torch
from scipy.stats import permutation_test
from extract import ROWS, row

from u1nb.core import rng
from u1nb.circle import Units, bias_features, canonical, class_sums, columns, heterogeneity
from u1nb.circle import mean_moments, phasor, ray_parts, second_root, signed_means, wild
from u1nb.angle import class_bias

def data(n=10_000, K=200):
    "Complex Gaussian z, classes leaning a little"
    r,lab = rng(0, 'bench'), np.repeat(np.arange(K), n//K)
    return r.standard_normal(n)+1j*r.standard_normal(n)+.1*np.exp(2j*np.pi*lab/K), lab

def peak(key='VmHWM'): return int(next(l for l in open('/proc/self/status') if l.startswith(key)).split()[1])/1024

def ours(n_perm):
    "Seconds and MB of class_bias"
    z,lab = data()
    class_bias(z, lab, n_perm=19)                                    # imports and a warm-up
    before = peak('VmRSS')
    open('/proc/self/clear_refs', 'w').write('5')                     # the peak starts anew
    t = time.perf_counter()
    b = class_bias(z, lab, n_perm=n_perm)
    t = time.perf_counter()-t
    print(f'class_bias: {t:.2f} s for {n_perm} permutations of {b.pictures} pictures in {b.K} classes, '
          f'{torch.get_num_threads()} threads')
    what = 'class_bias, 9,999 permutations of 10,000 pictures in 200 classes, all statistics'
    row(what, t*9999/n_perm, most=10, unit=' s')
    row('extra memory', peak()-before, most=1024, unit=' MB')
    return t/n_perm

def statistics():
    "Each statistic of class_bias by itself, a function of permutations (P,U)"
    u = Units(*data())
    n,F = u.counts, bias_features(u)
    v = canonical(columns(u.means(u.z)), n).variates
    def sums(perm): return np.moveaxis(class_sums(F, perm.astype(np.int32), n.astype(int)), -1, 0)
    def power(*of): return lambda perm: ((sums(perm)[list(of)]**2).sum(0)/n).sum(-1)
    x = u.means(phasor(u.z))
    m = mean_moments(x, n)
    mu = heterogeneity(n, m)[1]
    def directions(perm): return sum(ray_parts(n, m, signed_means(1.-2*(perm%2), x, n), mu))
    def second(perm):                                    # scipy knows no wild bootstrap: as many random numbers
        return second_root(v[:,0], wild(v[:,1], n, 1.-2*(perm%2)), n)
    return len(u.z), dict(T=power(0,1), T_2=power(2,3), T_centred=power(4,5), T_x=power(6), T_y=power(7),
                          eta2=power(6,7), heterogeneity=directions, second=second)

def scipys(n_perm, batch=50):
    "Seconds a permutation, summed over the statistics, each with scipy"
    N,tests = statistics()
    total = 0
    for name,f in tests.items():
        def stat(i, axis=-1): return f(np.atleast_2d(i).reshape(-1, i.shape[-1])).reshape(i.shape[:-1])
        t = time.perf_counter()
        permutation_test((np.arange(N),), stat, permutation_type='pairings', vectorized=True, n_resamples=n_perm,
                         batch=batch, alternative='greater', rng=0)
        t = (time.perf_counter()-t)/n_perm; total += t
        print(f'  scipy, {name:<14} {t*1e3:6.2f} ms a permutation')
    return total

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--perms', type=int, default=9999, help='permutations of class_bias')
    p.add_argument('--scipy', type=int, default=300, help='permutations of scipy')
    a = p.parse_args()
    t = ours(a.perms)
    row("scipy.stats.permutation_test once a statistic, time per permutation against ours", scipys(a.scipy)/t, least=8)
    sys.exit(not all(ROWS))
