"""Rows of before "One house" (text in `statistic` and `control`) as keyed rows (`reading`, `key`, `control`); what the old rows called a verdict goes to a table of its own.

    python nbs/results/migrate.py FILE.jsonl … [--verdicts FILE.csv]
    python nbs/results/migrate.py --rules FILE.jsonl …

The second form is for keyed rows: those of before the corrections of the rules say `rules: 1`, and correlations across class means are written once more with their interval over classes, `rules: 2`.
verdicts-rules-1.csv is what the code of commit d79ec38 said of the rows of rules 1: of each cell, `verdict`, and `corrected` after Holm over the cells. Numbers are not touched. Rows that said a number twice, once to show and once to judge, become one row."""
import csv, json, re, sys
from pathlib import Path

K,T = 10,.07   # of every memory before
KEYS = {'κ(.5)':'kappa', 'κ(.5) less an earlier layer’s':'kappa.minus_earlier', 'x':'centroid.x', 'y':'centroid.y', 'κ(.5) trained − random':'kappa.minus_random',
        'κ(.5) of a cell':'kappa.cell', 'κ(.5) of noise':'kappa.noise', 'invariant share':'symmetric_share', '|centroid|':'centroid', 'heterogeneity of directions':'heterogeneity',
        'a symmetry breaks':'symmetry', 'ω²':'omega2', 'split-half reliability':'reliability', 'split-half reliability of x':'reliability.x', 'split-half reliability of y':'reliability.y',
        'mean x of z':'mean_z.x', 'mean y of z':'mean_z.y', 'class directions':'class_directions', 'second canonical root':'second_root', 'ω² trained − random':'omega2.minus_random',
        'accuracy by chance':'accuracy.chance', 'accuracy of memory and angle − memory':'accuracy.minus_memory', 'planted and measured θ':'planted', 'angle off the medial axis':'medial_angle',
        'accuracy − raw pixels':'accuracy.minus_pixels', 'accuracy trained − random':'accuracy.minus_random', 'accuracy − .8 × linear probe':'accuracy.minus_probe', 'accuracy map':'accuracy_map',
        'accuracy and energy of a class: angles':'accuracy_lean', 'paired difference to one-hot':'gain', 'paired difference to a control':'gain', 'paired difference to one-hot, pooled':'gain.pooled',
        'paired difference to a control, pooled':'gain.pooled', 'draws of the angles':'draws', 'ImageNet':'imagenet'}
CONTROLS = {'uniform map: 1':'uniform', 'trained, as given':'given', 'as given':'given', 'trained':'given', 'an earlier layer':'earlier', 'averaged with mirrored pictures':'mirrored', 'shuffled labels':'shuffled',
            'shifted pictures':'shifted', 'raw pixels':'pixels', 'linear probe':'probe', 'linear probe: trained, the ceiling':'probe', 'the network’s own head, among these classes':'head',
            'random with calibrated batch norm':'random', 'random, batch norm left alone':'bare', 'mirrored pictures':'mirrored', 'rotated pictures':'rotated'}

def control(r):
    "The key of an old row's control, and the columns that its text held"
    s,c,more = r['statistic'],r.get('control') or '',{}
    if s=='κ(.5) of a cell': return r['weights'], {}
    if m:=re.search(r'(zeros|reflect|replicate) padding', c): more['padding'] = m[1]
    if m:=re.match(r'(bare )?random network (\d+)$', c): return ('bare' if m[1] else 'random'), dict(network=int(m[2]))
    if m:=re.match(r'(trained|random), \w+ padding, shifted$', c): return ('shifted' if m[1]=='trained' else 'random'), more|dict(weights=m[1], placement='shifted')
    if m:=re.match(r'trained, the pictures that (\w+) networks saw', c): return 'few', dict(weights=m[1])
    if m:=re.match(r'mode \w+, (from maps|a memory of)', c): return ('maps' if m[1]=='from maps' else 'maps.few'), {}
    if m:=re.match(r'(\d+) pixels$', c): return 'twice', dict(size=int(m[1]))
    if m:=re.match(r'the picture’s own (\w+)', c): return m[1], {}
    if m:=re.match(r'\d+ random networks, (calibrated|batch norm left)', c): return ('random' if m[1]=='calibrated' else 'bare'), {}
    if m:=re.match(r'\w+ plane, ', c): return 'given', {}
    if c=='the input itself': return r['layer'], dict(layer='input')
    if c in CONTROLS: return CONTROLS[c], {}
    if s.startswith('paired difference'): return c.removeprefix('onehot+').split(' ')[0] if c!='onehot' else c, dict(against=c)
    if s=='κ(.5) of noise': return 'noise', dict(noise=c.split(' ')[0])
    if s.startswith('κ(.5) of the input'): return s.rsplit(' ')[-1].removeprefix('input’s '), {}
    if s=='κ(.5) trained − random': return 'random', dict(padding='replicate', placement='shifted')
    if s=='κ(.5) less an earlier layer’s': return 'earlier', dict(other=c)
    return 'given', {}

def key(r):
    "The key of an old row, and the columns that its text held"
    s = r['statistic']
    if s.startswith('κ(.5) of the input'): return 'kappa.input', {}
    if s.startswith('log κ: '): return 'log_kappa', dict(effect=s[7:])
    if s.startswith('share invariant under '): return 'symmetric_share.under', dict(symmetry=s[22:])
    if s.startswith('score over '): return f'score.minus_{s[11:]}', {}
    if s.startswith('equivariance error'): return 'equivariance', {}
    if m:=re.match(r'accuracy from (\w+) alone', s): return f'accuracy.{m[1]}', {}
    if s=='ω² of the network − of the picture': return f"omega2.minus_{r['control'].split()[-1]}", {}
    if s.startswith('|circular correlation|'): return 'agreement.classes' if r.get('pairs')=='class means' else 'agreement.within', {}
    return KEYS.get(s, s), {}

def sure(r): return (r.get('n') or 0)>1 and (r.get('se') or 0)>1e-9

def new(r, last):
    "A keyed row, or None where another row says the same; `last` holds last ring and pitch by control"
    s,judged = r['statistic'],r.get('clause')
    if s=='verdict of a control' and not r['control'].startswith('random'): return None                     # follows from its rows
    if s=='verdict' or s=='|circular correlation|, held out' or (s=='accuracy' and judged): return None
    (k,a),(c,b) = key(r),control(r)
    out = {**r, 'reading':'first', 'key':k, 'control':c, **a, **b}
    if s=='κ(.5)' and 'map' not in r: out['control'] = 'earlier'
    if s=='verdict of a control': out |= dict(key='verdicts', verdicts={v.strip():int(n) for v,n in re.findall(r'([\w ]+?) \((\d+)\)', r['verdict'])}); out.pop('verdict')
    if 'T' in out: out['omnibus'] = out.pop('T')
    if r['claim']=='C3' and k in ('r_v','profile') and r['control'] in last: out |= dict(zip(('last_ring','pitch'), last[r['control']]))
    if r['claim']=='C6' and s.startswith('accuracy') and out['control'] not in ('probe','head') and k!='accuracy_lean': out |= dict(k=K, T=T)
    if k=='r_v' and (gone:=[o for o in ('lo','hi') if r.get(o) is None]): out['infinite'] = gone       # JSON has no infinity
    if judged and r.get('value') is None and judged=='met': out['vacuous'] = r.get('why')
    if r['claim'] in ('C7','C8') and judged and k.startswith('gain') and judged=='open' and (r.get('why') or not sure(r)): out['open'] = r.get('why') or 'all differences are the same'
    if out.get('open') and r.get('value') is None: out.pop('against', None)
    if k=='imagenet': out['value'] = float(judged=='met')
    for o in ('statistic','rule','threshold','clause','half','below','p_holm'): out.pop(o, None)
    if out.get('why') is None or k=='accuracy': out.pop('why', None)
    if out.get('se') is not None and out.get('n') and 'df' not in out: out['df'] = out['n']-1
    first = ('claim','reading','key','model','data','layer','value','lo','hi','se','df','n','groups','pictures','control')
    return {**{f:out[f] for f in first if f in out}, **out}

def rings(rows):
    "Last ring and pitch of each profile, by the old text of the control"
    thr = next((r['threshold'] for r in rows if r['statistic']=='r_v' and r.get('clause')), None)
    of = {r['control']:max(x for x,i in zip(r['r'], r['inside']) if i) for r in rows if r['statistic']=='profile'}
    sizes = {r['control']:len(r['map']) for r in rows if r['statistic']=='profile'}
    pitch = {c:2/n for c,n in sizes.items()}
    if thr is not None: assert abs(of['as given']-pitch['as given']-thr)<1e-9, (of, pitch, thr)
    return {c:(of[c],pitch[c]) for c in of}

def stamped(r):
    "A keyed row that says by which version of the rules it was made"
    return r if 'rules' in r else {**{k:r[k] for k in ('claim','reading')}, 'rules':1, **r}

def over_classes(rows):
    "Rows of correlations across class means, judged by their interval over classes; n of those with four groups or more, which were parted in halves"
    groups = {(r['model'],r['data']):r['class_groups'] for r in rows if r['key']=='class_directions'}
    for r in rows:
        if r['key']!='agreement.classes' or r.get('lo_classes') is None or r['rules']!=1: continue
        n = sum(g>=4 for g in groups[r['model'],r['data']])
        of = dict(r, rules=2, lo=r['lo_classes'], hi=r['hi_classes'], n=n, df=n-1, groups='class', scale='bootstrap', taken_from='lo_classes and hi_classes of the row of rules 1')
        yield {k:v for k,v in of.items() if k not in ('se','smallest','lo_classes','hi_classes')}

def second(files):
    "Stamp the rows of files, and append those that follow from them"
    for f in map(Path, files):
        rows = [stamped(json.loads(l)) for l in f.read_text(encoding='utf-8').splitlines()]
        if not any(r['rules']==2 and r['key']=='agreement.classes' for r in rows): rows += list(over_classes(rows))
        f.write_text(''.join(json.dumps(r, ensure_ascii=False)+'\n' for r in rows), encoding='utf-8')

def main(files):
    said = []
    for f in map(Path, files):
        rows = [json.loads(l) for l in f.read_text(encoding='utf-8').splitlines()]
        if 'statistic' not in rows[0]: print(f, 'is keyed already'); continue
        if rows[0]['claim']=='runs':
            rows = [{'claim':r['claim'], 'reading':'first', 'key':r['statistic'], **{k:v for k,v in r.items() if k not in ('claim','statistic')}} for r in rows]
        else:
            said += [[r['claim'],r['model'],r['data'],bool(r.get('demo')),r['verdict'],json.dumps(r['clauses'], ensure_ascii=False),json.dumps(r.get('cells'), ensure_ascii=False)] for r in rows if r['statistic']=='verdict']
            last = rings([r for r in rows if r['claim']=='C3'])
            rows = [o for r in rows if (o:=new(r, last))]
        f.write_text(''.join(json.dumps(r, ensure_ascii=False)+'\n' for r in rows), encoding='utf-8')
    return said

if __name__=='__main__':
    args = sys.argv[1:]
    out = args[args.index('--verdicts')+1] if '--verdicts' in args else None
    if '--rules' in args: sys.exit(second([a for a in args if a.endswith('.jsonl')]))
    said = main([a for a in args if a.endswith('.jsonl')])
    if out and said:
        with open(out, 'w', newline='', encoding='utf-8') as f: csv.writer(f).writerows([['claim','model','data','demo','verdict','clauses','cells'], *said])
