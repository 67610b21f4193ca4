"Every verdict follows from the stored rows alone, and is what it was when the rows were made"
import csv, json
from pathlib import Path
import pytest
from u1nb.core import Results
from u1nb.rules import RULES, cells_of, judge_cell, judge_claim

ROOT = Path(__file__).parents[1]
FILES = {f.stem+f.parent.name[:2]:Results.load(f) for f in sorted((ROOT/'nbs/results').rglob('*.jsonl')) if not f.name.startswith('runs-')}
rows = Results()
for o in FILES.values(): rows.extend(o)
# what the code that made the rows said: verdict of each cell, and what its clauses said
OLD = list(csv.DictReader((Path(__file__).parent/'verdicts.csv').open(encoding='utf-8')))

def states(cell, half): return sorted(s.state for s in cell.said if s.clause.half==half and s.clause.key not in ('deviation','draws'))

@pytest.mark.parametrize('old', OLD, ids=lambda o: f"{o['claim']} {o['model']} {o['data']}")
def test_cell(old):
    rule = RULES[old['claim'],'first']
    cells = cells_of(rows, rule, old['demo']=='True')
    cell = judge_cell(cells['tasks' if rule.flat else (old['model'],old['data'])], rule)
    assert cell.verdict==old['verdict']
    said = json.loads(old['clauses'])
    first,then = (said['first'],said['then']) if 'first' in said else (list(said.values()),[])
    if old['claim']=='C8': first.pop()                       # the draws of the angles, a precondition now
    assert states(cell, 1)==sorted(first) and states(cell, 2)==sorted(then)
    if rule.flat: assert judge_claim(rows, old['claim'], demo=old['demo']=='True').cells==json.loads(old['cells'])

@pytest.mark.parametrize('claim', [f'C{k}' for k in range(1, 9)])
def test_readme(claim):
    "The claims table of README.md, with the counts of its cells"
    v,line = judge_claim(rows, claim),next(l for l in (ROOT/'README.md').read_text(encoding='utf-8').splitlines() if l.startswith(f'| {claim} '))
    assert f'**{v.verdict}**' in line
    for said,n in v.counts.items(): assert f'{n} {said}' in line, line

def test_rows_are_keyed():
    for r in rows: assert r['reading'] and r['key'] and 'statistic' not in r, r
    assert len(OLD)==49

@pytest.mark.parametrize('name', FILES)
def test_no_row_is_there_twice(name):
    "What distinguishes rows of one run are its columns, not their wording"
    cols = ('claim','reading','key','model','data','layer','control','other','plane','network','effect','contrast','symmetry',
            'weights','padding','placement','noise','mode','memory','against','optimizer','size')
    said = [tuple(str(r.get(c)) for c in cols) for r in FILES[name]]
    assert len(set(said))==len(said), [s for s in set(said) if said.count(s)>1][:3]
