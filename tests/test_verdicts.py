"Every verdict follows from the stored rows alone; what the rules of before said is kept beside"
from itertools import product
from pathlib import Path
import pytest
from u1nb.core import Results
from u1nb.report import PUBLISHED
from u1nb.rules import RULES, Clause, Said, cells_of, changed, current, judge_cell, judge_claim, judge_clause, one_sided

ROOT = Path(__file__).parents[1]
THERE = ROOT/'nbs/results'
FILES = {f.stem+f.parent.name[:2]:Results.load(f) for f in sorted(THERE.rglob('*.jsonl')) if not f.name.startswith('runs-')}
rows,confirmed,families = Results(),Results(),Results()     # the registered cells, those of 56_confirmation and of 58_third_family
for k,o in FILES.items(): {'56':confirmed, '58':families}.get(k[-2:], rows).extend(o)
CELLS = [(rule, demo, cell, rs) for of,rule,demo in product((rows,confirmed,families), RULES.values(), (False,True))
         for cell,rs in cells_of(of, rule, demo).items()]

#: cells that are judged otherwise than by rules 1 (nbs/results/verdicts-rules-1.csv), and why
NO_FIT = 'no model fits the rings, so that crown and brim without a model decide'
TEN = 'judged by the interval over ten classes, which holds .3'
CHANGED = {
    ('C5','cifar_resnet20','cifar10'):TEN, ('C5','cifar_resnet32','cifar10'):TEN,
    ('C3','cifar_resnet20','cifar10'):NO_FIT, ('C3','cifar_resnet32','cifar10'):NO_FIT,
    **{('C3',m,d):NO_FIT for m in ('mobilenet_v2','timm/tf_efficientnet_lite0') for d in ('caltech101','tiny_imagenet')}}

def test_changed():
    "The verdicts of rules 1, but for those that have a reason"
    found = changed(rows, THERE)
    assert set(zip(found.claim, found.model, found.data))==set(CHANGED), found

@pytest.mark.parametrize('rule', RULES.values(), ids=lambda r: r.name)
def test_readme(rule):
    "The claims table of README.md and that of the package, with the counts of their cells"
    lines = (ROOT/'README.md').read_text(encoding='utf-8').splitlines()
    v,line = judge_claim(rows, rule.claim, rule.reading),next(l for l in lines if l.startswith(f'| {rule.name} '))
    assert f'**{v.verdict}**' in line and PUBLISHED[rule.name]==(v.verdict, v.counts)
    for said,n in v.counts.items(): assert f'{n} {said}' in line, line
    assert len(line.split('|')[-2].split())<=20, 'in at most 20 words'

def test_readme_says_what_was_confirmed():
    "Verdicts and clauses of the networks that no rule had seen, beside those of EfficientNet-Lite0 on the same data"
    text,same,states = (ROOT/'README.md').read_text(encoding='utf-8'),{},[]
    for rule in RULES.values():
        before = {c:judge_cell(rs, rule) for c,rs in cells_of(rows, rule).items()}
        for (_,data),rs in cells_of(confirmed, rule).items():
            now,then = judge_cell(rs, rule),before['timm/tf_efficientnet_lite0',data]
            same.setdefault(rule.name, []).append(now.verdict==then.verdict)
            order = ('met','open','excluded').index                             # of several layers the least
            a,b = ({s.clause:s.state for s in sorted(o.said, key=lambda s: order(s.state))} for o in (now,then))
            states += [{a[c],b[c]} for c in a if c in b]
    found = [o for of in same.values() for o in of]
    *first,last = [k for k,of in same.items() if all(of)]
    assert f'of {len(found)} verdicts {sum(found)} are those of EfficientNet-Lite0' in text
    assert f'{", ".join(first)} and {last} say the same in each' in text, (first,last)
    assert f'of {len(states)} clauses {states.count({"met","excluded"})} are contradicted' in text, (len(states),states.count({'met','excluded'}))

def test_readme_says_what_more_families_change():
    "The verdicts of the registered cells with those of 58_third_family, and the cells of 56_confirmation beside them"
    text,nine,moved = (ROOT/'README.md').read_text(encoding='utf-8'),Results(),{}
    nine.extend([*rows, *families])
    for rule in RULES.values():
        if rule.flat: continue
        a,b,c = (judge_claim(o, rule.claim, rule.reading) for o in (rows, families, nine))
        if a.verdict!=c.verdict: moved[rule.name] = a.verdict,c.verdict,b.counts
        if rule.name=='C6': last = c
    six = judge_claim(confirmed, 'C6').counts
    assert f'Over them C6 is *{last.verdict}*, in {last.counts["supported"]} of {len(last.cells)}' in text
    assert f'of the confirming cells in {six["supported"]} of {sum(six.values())}' in text and f'cells of {len(last.families)} families' in text
    first,*rest = [k for k in moved if k!='C6']
    assert f'{first} and {", ".join(rest)} go from *not supported* to *inconclusive*' in text
    assert all(moved[k][:2]==('not supported','inconclusive') and not {'supported','partly'}&set(moved[k][2]) for k in (first,*rest))
    cells = judge_claim(families, 'C2').cells
    assert [c for c,v in cells.items() if v=='not supported']==['resnet18 on cifar10_jpeg'] and 'C2 fails in ResNet-18' in text

@pytest.mark.parametrize('rule,demo,cell,rs', CELLS, ids=lambda o: str(o) if isinstance(o, (str,tuple)) and not hasattr(o, 'clauses') else None)
def test_cell(rule, demo, cell, rs):
    "No clause is judged by rows of both versions; p and interval agree"
    for s in judge_cell(rs, rule).said:
        of = [r for r in rs if (r['key'],r['control'],r.get('plane'))==(s.clause.key,s.row.get('control'),s.row.get('plane'))]
        assert len({r['rules'] for r in of})<=1, s.clause
        if s.clause.test!='above all': assert (one_sided(s)<=.025)==(s.state=='met'), s

@pytest.mark.parametrize('key', ['omega2','reliability'])
@pytest.mark.parametrize('test,t', list(product(('above','below'), (-.2,0,.1,.3,.45,.6,.9))))
@pytest.mark.parametrize('lo,hi,infinite', [(.1,.6,()), (0,.6,()), (.3,.3,()), (.31,.6,()), (None,.6,['-lo']), (.1,None,['hi'])])
def test_p_agrees_with_interval(key, test, t, lo, hi, infinite):
    "At the ends themselves, at infinite ones, and where the value lies outside its interval"
    c,r = Clause(1, key, 'given', test, t),dict(key=key, value=.3, lo=lo, hi=hi, infinite=infinite, df=9)
    s = Said(c, r, judge_clause(c, r))
    assert 0<=one_sided(s)<=1 and (one_sided(s)<=.025)==(s.state=='met'), s

def test_rows_are_keyed():
    for r in rows: assert r['reading'] and r['key'] and r['rules'] in (1,2) and 'statistic' not in r, r

@pytest.mark.parametrize('name', FILES)
def test_no_row_is_there_twice(name):
    "What distinguishes rows of one run are its columns, not their wording"
    cols = ('claim','reading','rules','key','model','data','layer','control','other','plane','network','effect','contrast','symmetry',
            'weights','padding','placement','noise','mode','memory','against','optimizer','size',
            'ground','side','contrast','axis','per_class','pictures')
    said = [tuple(str(r.get(c)) for c in cols) for r in FILES[name]]
    assert len(set(said))==len(said), [s for s in set(said) if said.count(s)>1][:3]

def test_current_keeps_what_is_not_replaced():
    old = [r for r in rows if r['rules']==1 and r['key']!='agreement.classes' and r['claim'] in ('C1','C5')]
    assert all(r in current(rows) for r in old[:50])
