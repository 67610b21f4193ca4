"The ground: lazy names, rows, and what is refused"
import json, math, subprocess, sys
from pathlib import Path
import pytest, torch
import u1nb
from u1nb.core import Interval, Results, interval_text, plane, test_tensor as same

def test_lazy_names():
    "`import u1nb` imports no torch, and each name is where the table says"
    code = 'import sys, u1nb; print("torch" in sys.modules, "numpy" in sys.modules)'
    said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert said.split()==['False','False']
    there = [n for n,m in u1nb._HOME.items() if (Path(u1nb.__file__).parent/f'{m}.py').exists()]
    assert len(there)>=13 and set(u1nb._HOME)<=set(dir(u1nb))
    for n in there: assert callable(getattr(u1nb, n)), n
    with pytest.raises(AttributeError, match="no 'energi'; it has images"): u1nb.energi
    with pytest.raises(ImportError): exec('from u1nb import nothing')

def test_infinite_numbers():
    "JSON knows no infinity: rows name it, and texts show it"
    res = Results()
    row = res.add('C3', 'r_v', Interval(math.inf, -math.inf, math.inf, math.nan, 1))
    assert (row['value'], row['lo'], row['infinite'])==(None, None, ['value','-lo','hi'])
    assert row['se'] is None and row['df']==0 and row['smallest'] is None
    assert interval_text(row)=='∞ [-∞, ∞]'
    json.dumps(res[0], allow_nan=False)

@pytest.mark.parametrize('end', ['jsonl','parquet'])
def test_round_trip(end, tmp_path):
    "Rows of every kind come back as they were, None and what is missing told apart"
    res = Results()
    of = dict(claim='C0', reading='own', key='k', control=None)
    res.extend(of|r for r in [dict(a=1, b='x', c=[1,{'d':None}], e={'f':[.5]}, g=None), dict(a=None, b='ü', c=None, h=True), dict(a=2.5, g=7, i=[], h='no'), {}])
    back = Results.load(res.save(tmp_path/f'rows.{end}'))
    assert list(back)==list(res)
    assert [type(r.get('a')) for r in back if 'a' in r][1] is type(None)
    assert [p.name for p in tmp_path.iterdir()]==[f'rows.{end}']

def test_saving_is_whole(tmp_path):
    "What cannot be written leaves the older file"
    f = Results().save(tmp_path/'rows.jsonl')
    row = dict(claim='C1', reading='first', key='k', control='given')
    f.write_text(json.dumps(row)+'\n')
    bad = Results(); bad.append(dict(x=object()))
    with pytest.raises(TypeError): bad.save(f)
    assert list(Results.load(f))==[row] and len(list(tmp_path.iterdir()))==1

def test_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match='no rows'): Results.load(tmp_path)
    with pytest.raises(FileNotFoundError, match='no rows'): Results.load(tmp_path/'nowhere.jsonl')
    with pytest.raises(ValueError, match='got rows.csv'): Results().save(tmp_path/'rows.csv')
    with pytest.raises(ValueError, match='got H=0'): plane(0)
    with pytest.raises(AssertionError, match='dtype'): same(torch.ones(3), torch.ones(3).double())
    with pytest.raises(AssertionError, match='shape'): same(torch.ones(3), torch.ones(2, 3))

def test_tables_are_bounded():
    "A table on the page has 12 rows and 7 columns at most, and says how many rows there are"
    res = Results(model='m')
    for k in range(40): res.add(f'C{k%3}', f'key {k%5}', Interval(k/7, 0., 9., 1., 5), control=f'c{k%2}', reading=f'{k%4}', data=f'd{k}', layer=f'l{k}', verdict='met')
    html = res._repr_html_()
    assert html.count('<tr')==13 and html.count('<th>')<=7 and '40 rows, of which the first 12' in html and 'model m' in html
    assert '0 rows' in Results()._repr_html_() and '0 rows' in repr(Results())

def test_digest_of_a_class_grows_with_it():
    "A method that is patched in, or another one, makes another class of it"
    from fastcore.basics import patch
    from u1nb.core import code_digest
    def grown(*bodies):
        class Net: "A class without source, as a notebook or `-c` has it"
        for k,b in enumerate(bodies):
            space = dict(__name__='u1nb.made'); exec(f'def f(self): return {b}', space); setattr(Net, f'f{k}', space['f'])
            space['f'].__qualname__ = f'Net.f{k}'
        code_digest.cache_clear()
        return code_digest(Net)
    assert len({grown(), grown('1'), grown('2'), grown('1', '2')})==4 and grown('1')==grown('1')
    class Own: pass
    before = code_digest(Own)
    @patch
    def more(self:Own): return 1
    code_digest.cache_clear()
    assert code_digest(Own)!=before
