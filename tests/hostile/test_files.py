"Files that are cut, empty, poisoned or of another kind, a full disk, a folder that may not be written, and text that looks like markup"
import ctypes, json, os, pickle, random, resource, shutil, sys, tempfile, tracemalloc, warnings
from pathlib import Path
import matplotlib.pyplot as plt, numpy as np, pytest, torch
from forks import begin, end, right
from safetensors.torch import save_file
from test_kills import COMMANDS, TINY, Made, Net, command, left, memory, one_pass, report, train
from u1nb.core import Interval, Results, legible, plain, read_tensors, write_tensors
from u1nb.energy import EnergyMap
from u1nb.extract import Collect, observe
from u1nb.memory import Memory, pool
from u1nb.nets import build
from u1nb.report import page, plot_cells, plot_intervals, plot_maps
from u1nb.rules import as_table
from u1nb.store import Activations
from u1nb.study import network
from u1nb.train import Resident, decode, fit, restore
from u1nb.data import images

def rows_of(n, **more):
    res = Results(model='m', data='d')
    for k in range(n): res.add('C0', f'k{k}', Interval(k/7, 0., 1., .1, 5), why=f'ü{k}', **more)
    return res

def loaded(path):
    "The rows, and what was said of them"
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        return list(Results.load(path)),[str(o.message) for o in w]

def test_a_missing_end_of_line(tmp_path, right):
    "A last line without its end was glued to the next row, and both were lost"
    res = rows_of(2)
    f = res.save(tmp_path/'rows.jsonl')
    f.write_bytes(f.read_bytes()[:-1])
    def go():
        Results(f).add('C0', 'new')
        return loaded(f)
    right(go, lambda o: o[0][:2]==list(res) and o[0][2]['key']=='new' and not o[1])

def test_cut_anywhere(tmp_path, many, right):
    "Half a row at the end is left out and said, and put aside by the next that writes; the others are kept"
    res = rows_of(3)
    f = res.save(tmp_path/'rows.jsonl')
    whole,r = f.read_bytes(),random.Random(0)
    for at in r.sample(range(1, len(whole)), many(20, 300)):
        f.write_bytes(whole[:at])
        n = whole[:at+1].count(b'\n')
        half = at and whole[at-1:at]!=b'\n' and whole[at:at+1]!=b'\n'
        right(lambda: loaded(f), lambda o: o[0]==list(res)[:n] and len(o[1])==half and all(str(f) in m and f'line {n+1}' in m for m in o[1]))
        (tmp_path/'rows.jsonl.half').unlink(missing_ok=True)
        def go():
            with warnings.catch_warnings(): 
                warnings.simplefilter('ignore')
                Results(f).add('C0', 'new')
            return loaded(f)
        right(go, lambda o: o[0][:-1]==list(res)[:n] and o[0][-1]['key']=='new' and not o[1] and (tmp_path/'rows.jsonl.half').exists()==half)

@pytest.mark.parametrize('suffix', ['jsonl','parquet'])
@pytest.mark.parametrize('text', ['a\u2028b','a\u2029b','a\x85b','a\x0bb\x0cc\x1cd','a\rb\r\nc','\udce9t\udce9','\x00','😀\ufeff','"\\'], ids=ascii)
def test_text_comes_back(text, suffix, tmp_path, right):
    "Rows with U+2028, U+0085 or the name of a file that is no Unicode could be written, and not read"
    res = rows_of(2, text=text)
    res.path = tmp_path/'more.jsonl'
    res.add('C0', text)
    assert res[0]['text']==legible(text) and (text==legible(text) or text[0]=='\udce9')
    right(lambda: Results.load(res.save(tmp_path/f'rows.{suffix}')), lambda got: list(got)==list(res))
    right(lambda: Results.load(res.path), lambda got: list(got)==list(res)[2:])

def test_invalid_utf8(tmp_path, right):
    f = tmp_path/'rows.jsonl'
    f.write_bytes(json.dumps(rows_of(1)[0]).encode().replace(b'"m"', b'"caf\xe9"')+b'\n')
    right(lambda: Results.load(Results.load(f).save(tmp_path/'again.jsonl')), lambda got: got[0]['model']=='caf\\udce9' and '0 rows' not in repr(got))

BAD = {'[1,2]':'object', '7':'object', 'null':'object', '"text"':'object', '{"claim":"C1"}':'lacks reading, key, control', '{}':'lacks claim', '{"a":':'no row', '['*10**5:'no row',
       '{"claim":"runs","reading":"runs","key":"accuracy","control":null}':'lacks arm, seed', '\x00\x00':'no row', '<html>':'no row', '1'*5000:'no row'}

@pytest.mark.parametrize('bad', BAD, ids=lambda s: s[:9])
def test_what_is_no_row(bad, tmp_path, trial):
    "It is named with its file and line"
    f = rows_of(3).save(tmp_path/'rows.jsonl')
    lines = f.read_text().split('\n')
    f.write_text('\n'.join([lines[0], bad, *lines[1:]]))
    trial(lambda: Results.load(f), names=[f, 'line 2', BAD[bad]], kinds=ValueError)

def test_parquet(tmp_path, many, trial):
    "A parquet that is cut, empty, or of something else"
    f = rows_of(3).save(tmp_path/'rows.parquet')
    whole,r = f.read_bytes(),random.Random(0)
    for at in [0, 4, *r.sample(range(len(whole)), many(10, 100))]:
        f.write_bytes(whole[:at])
        trial(lambda: Results.load(f), names=str(f), kinds=ValueError)
    import pyarrow as pa, pyarrow.parquet as pq
    pq.write_table(pa.table({'x':[1]}), f)
    trial(lambda: Results.load(f), names=[f, 'row 1', 'lacks claim'], kinds=ValueError)

class Poison:
    def __reduce__(self): return os.mkdir, (str(self.at),)

def damaged(whole, folder, r, n, suffix='safetensors'):
    "Files that are not what they should be"
    size = len(whole)
    made = [b'', b'{}', bytes(1000), os.urandom(1000), b'\xff'*16, whole+b'more', whole[:8], *(whole[:k] for k in sorted(r.sample(range(size), n)))]
    for k,b in enumerate(made):
        f = folder/f'damaged{k}.{suffix}'
        f.write_bytes(b)
        yield f

def test_checkpoints(tmp_path, many, trial):
    "Cut, empty and poisoned checkpoints and runs ended in a traceback, or were not named"
    r,n = random.Random(0),many(3, 30)
    sd = Net().state_dict()
    save_file(sd, tmp_path/'whole.safetensors')
    torch.save(sd, tmp_path/'whole.pth')
    for suffix in ('safetensors','pth'):
        for f in damaged((tmp_path/f'whole.{suffix}').read_bytes(), tmp_path, r, n, suffix):
            same = lambda n: n.model.state_dict().keys()==sd.keys() and all(torch.equal(v, sd[k]) for k,v in n.model.state_dict().items())
            trial(lambda: network(str(f), arch='test_kills:Net'), same, names=f.name)
            trial(lambda: network(str(f)), names=f.name)
    bad = Poison()
    bad.at = tmp_path/'ran'
    for k,o in enumerate([bad, {'state_dict':bad}, {'a':[bad]}]):
        f = tmp_path/f'poison{k}.pth'
        torch.save(o, f)
        trial(lambda: network(str(f), arch='test_kills:Net'), names=f.name)
        (tmp_path/f'plain{k}.pt').write_bytes(pickle.dumps(o))
        trial(lambda: network(str(tmp_path/f'plain{k}.pt'), arch='test_kills:Net'), names=f'plain{k}.pt')
    assert not bad.at.exists()

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A run of `fit`"
    out = tmp_path_factory.mktemp('run')
    data = Resident(decode(images('digits', n=60), 8), 30)
    fit(build('fastnet_small', 10, 8), data, epochs=1, out=out, device='cpu', progress=False)
    return out/'run.safetensors',data

def test_runs(run, tmp_path, many, trial):
    "A run that is cut, or says what no run says"
    (file,data),r = run,random.Random(0)
    tensors,said = read_tensors(file)
    bad = list(damaged(file.read_bytes(), tmp_path, r, many(2, 20)))
    for k,(text,drop) in enumerate([({'recipe':'null'}, ''), ({'recipe':'{}'}, ''), ({'recipe':'{'}, ''), ({'recipe':'[1]'}, ''), ({'told':'{'}, ''), ({'rows':'7'}, 'model'), ({}, 'model'), ({}, 'optim'),
                                    ({'recipe':said['recipe'].replace('fastnet_small', 'os:getcwd')}, ''), ({'recipe':said['recipe'].replace('fastnet_small', 'timm/hf-hub:a/b')}, '')]):
        f = tmp_path/f'poison{k}.safetensors'
        bad.append(f)
        write_tensors(f, {k:v for k,v in tensors.items() if not (drop and k.startswith(drop))}, **said|text)
    for lacking in said:
        bad.append(tmp_path/f'lacks-{lacking}.safetensors')
        write_tensors(bad[-1], tensors, **{k:v for k,v in said.items() if k!=lacking})
    for f in bad:
        fine = (lambda _: True) if f.stem=='poison7' else None         # without the optimiser's state it is a network, but no run
        trial(lambda: restore(f), fine, names=f.name, kinds=ValueError)
        trial(lambda: network(str(f)), fine, names=f.name, kinds=ValueError)
        d = tmp_path/f.stem
        d.mkdir()
        os.link(f, d/'run.safetensors')
        again = f.stem in [f'poison{k}' for k in (0,1,3,8,9)]          # what made the network is not asked
        trial(lambda: fit(build('fastnet_small', 10, 8), data, epochs=1, out=d, device='cpu', progress=False), (lambda _: True) if again else None, names=str(d/'run.safetensors'), kinds=ValueError)

def test_a_damaged_pass(tmp_path, many, trial, right):
    "A stored pass that was cut stopped every later run: it is put aside, said, and made again"
    def go():
        with warnings.catch_warnings(record=True) as w:
            warnings.simplefilter('always')
            o = observe(Net(), Made(), 'b', Collect(pooled=pool), batch_size=16, device='cpu', save=tmp_path/'pass.safetensors')
        return o.pooled['b'],[str(o.message) for o in w]
    want,_ = go()
    for f in damaged((tmp_path/'pass.safetensors').read_bytes(), tmp_path, random.Random(0), many(2, 10)):
        shutil.copy(f, tmp_path/'pass.safetensors')
        right(go, lambda o: np.array_equal(o[0], want) and len(o[1])==1 and str(tmp_path/'pass.safetensors') in o[1][0] and 'put aside, in pass.safetensors.damaged' in o[1][0])
    write_tensors(tmp_path/'pass.safetensors', dict(x=torch.ones(2)))
    trial(go, names=str(tmp_path/'pass.safetensors'), kinds=ValueError)

@pytest.mark.torture
def test_damaged_passes_of_a_report(tmp_path, right):
    "The same in a report's folder, where what is whole but says something else is made again too"
    report(tmp_path)
    want,files = Results.load(tmp_path/'rows.jsonl'),sorted((tmp_path/'passes').iterdir())
    files[0].write_bytes(files[0].read_bytes()[:-5])
    files[1].write_bytes(b'')
    write_tensors(files[2], dict(x=torch.ones(2)))
    def go():
        with warnings.catch_warnings(record=True) as w:
            warnings.simplefilter('always')
            report(tmp_path)
        return Results.load(tmp_path/'rows.jsonl'),[str(o.message) for o in w if 'cannot be used' in str(o.message)]
    plain = lambda rows: [{k:v for k,v in r.items() if k not in ('seconds','command')} for r in rows]
    right(go, lambda o: plain(o[0])==plain(want) and [[f.name for f in files[:3] if f.name in m] for m in sorted(o[1])]==[[f.name] for f in files[:3]])

def test_damaged_activations(tmp_path, many, trial):
    "Files of activations that are cut, or another's, are named"
    observe(Net(), Made(), 'b', Activations(tmp_path/'acts', shard=1e6), batch_size=16, device='cpu')
    for name in ('index','000-00000'):
        f = tmp_path/f'acts/{name}.safetensors'
        whole = f.read_bytes()
        for bad in [*damaged(whole, tmp_path, random.Random(0), many(2, 10)), write_tensors(tmp_path/'other.safetensors', dict(x=torch.ones(2)))]:
            shutil.copy(bad, f)
            trial(lambda: Activations.open(tmp_path/'acts')['b'][:], names=str(f), kinds=ValueError)
        f.write_bytes(whole)

def test_damaged_memories(tmp_path, many, trial):
    m = Memory().add(torch.randn(20, 4), torch.arange(20)%3)
    m.save(tmp_path/'memory.safetensors')
    for f in damaged((tmp_path/'memory.safetensors').read_bytes(), tmp_path, random.Random(0), many(2, 20)):
        trial(lambda: Memory.open(f), names=f.name, kinds=ValueError)

def add(out):
    rows = Results(out/'rows.jsonl')
    for k in range(40): rows.add('C0', f'{k}', text='x'*50*k)

def saved(out):
    out.mkdir(exist_ok=True)
    rows = Results()
    for k in range(60): rows.add('C0', f'{k}', value=k/7)
    rows.save(out/'saved.parquet')
    rows.save(out/'saved.jsonl')

def full(f, out, size):
    "f(out) where no file can be longer than so many bytes"
    resource.setrlimit(resource.RLIMIT_FSIZE, (size,)*2)
    try: f(out)
    except OSError as e: sys.exit(f'{e}')

def test_saving_copies_nothing(tmp_path, right):
    "What is saved was laid out in memory first: three times the size of a memory"
    x = torch.ones(2**21)
    write_tensors(tmp_path/'warm.safetensors', dict(x=x[:9]))
    tracemalloc.start()
    write_tensors(tmp_path/'x.safetensors', dict(x=x))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    right(lambda: peak, lambda n: n<x.nbytes/8)

@pytest.mark.parametrize('f', [add, *(pytest.param(f, marks=pytest.mark.torture) for f in (saved, memory, train, one_pass, report))])
def test_full_disk(f, tmp_path, many, trial, right):
    "A full disk ended in messages without a file's name, or left half a file; after it the same call goes on"
    assert end(begin(f, tmp_path/'whole'))==[0]
    want = left(tmp_path/'whole')
    largest = max(p.stat().st_size for p in (tmp_path/'whole').rglob('*') if p.is_file())
    for k,size in enumerate(np.geomspace(3000, largest+999, many(2, 5 if f is report else 10)).astype(int).tolist()):
        out,log = tmp_path/f'full{k}',tmp_path/f'log{k}'
        code, = end(begin(full, f, out, size, log=log))
        said = log.read_text()
        def ended():
            if code: raise OSError(said.splitlines()[-1] if 'Traceback' not in said else 'Traceback')
            return True
        trial(ended, lambda _: size>largest, names=str(out))
        assert not list(out.rglob('*.part'))
        before = left(out)                                      # what is there can be read
        if f is not add: assert end(begin(f, out))==[0]
        right(lambda: left(out), lambda got: got==want if f is not add else got['rows.jsonl']==want['rows.jsonl'][:len(got['rows.jsonl'])])

def nobody(f, *args):
    "f as a user who may not write everywhere; root gives up its capabilities"
    if os.getuid()==0: ctypes.CDLL(None).capset((ctypes.c_uint32*2)(0x20080522, 0), (ctypes.c_uint32*6)())
    try: f(*args)
    except OSError as e: sys.exit(f'{e}')

@pytest.mark.parametrize('f', [add, saved, memory, *(pytest.param(f, marks=pytest.mark.torture) for f in (train, one_pass, report))])
def test_read_only(f, trial):
    "A folder that may not be written is named"
    with tempfile.TemporaryDirectory() as d:
        log = Path(d)/'log'
        log.touch()
        os.chmod(d, 0o555)
        code, = end(begin(nobody, f, Path(d)/'out', log=log))
        said = log.read_text()
        def ended():
            if code: raise OSError(said.splitlines()[-1] if 'Traceback' not in said else 'Traceback')
        trial(ended, names=[d, 'ermission'])

MARKUP = ['$\\frac{$', '$x$', 'a$b', '$$', '\\$', '<script>alert(1)</script>', '<b>&amp;', '"onload="x', '**a**', '_a_', '`a`', '[a](javascript:x)', 'a|b', '$(touch ran)', '`touch ran`', ';touch ran', '{{ 7*7 }}', '{% raw %}',
          '\udce9', '\x1b[31m', '%s', '{}', "'", '-rf', '..', '^_{']

SOME = [pytest.param(t, id=ascii(t), marks=[pytest.mark.torture]*(t not in (MARKUP[0],MARKUP[5],'\udce9'))) for t in MARKUP]

def drawn(fig):
    "Does it draw, and does it say this, sign by sign?"
    fig.canvas.draw()
    said = {(t.get_text(), t._preprocess_math(t.get_text())) for t in fig.findobj(plt.Text)}
    plt.close(fig)
    return {shown for _,(shown,math) in said if not math}, [t for t,(_,math) in said if math]

@pytest.mark.parametrize('text', SOME)
def test_text_in_figures(text, right):
    "A class named `$\\frac{$` lost the page after all the work: it was read as mathematics"
    from u1nb.angle import plot_directions
    from u1nb.energy import plot_concentration
    from u1nb.trials import plot_forest
    rows = Results()
    for m in (text, 'other'): rows.add('C1', 'kappa', Interval(1., .5, 1.5, .1, 9), model=m, data=text, layer=text, map=[[.25]*2]*2, demo=False)
    want = legible(text)                                        # as rows have it
    gains = [dict(data=d, model='m', optimizer=want, key='gain', value=.1, lo=0., hi=.2, n=3, arm=want, against=want) for d in (want,'b')]
    classes = {'class':[want,'b'], **{k:[.1,.2] for k in ('n','groups','R','R_lo','R_hi','theta','p_holm')}}
    def fig(draw):
        f,ax = plt.subplots()
        draw(ax)
        return f
    def said(*figs): return [drawn(f) for f in figs]
    full = lambda: said(fig(lambda ax: plot_intervals(rows, ax, line=('model','data'))), plot_maps(rows), fig(lambda ax: plot_cells([(r,r) for r in rows], ax)),
                        fig(lambda ax: plot_forest(gains, ax, by=('data','model','optimizer'))), fig(lambda ax: plot_concentration({text:rows[0]}, ax, 'label')),
                        fig(lambda ax: plot_directions(classes, ax)))
    right(full, lambda o: all(not math and any(want in s for s in shown) for shown,math in o))

@pytest.mark.parametrize('text', SOME)
def test_text_on_the_page(text, tmp_path, right):
    "What is a user's stands on the page as it is written, and runs nowhere"
    import html.parser
    def rows_with(text):
        rows = Results(model=text, data=text, demo=False, groups='picture', view=text, layer=text)
        rows.add('C1', 'kappa', Interval(1., .5, 1.5, .1, 9), 'uniform', map=[[.25]*4]*4)
        rows.add('C6', 'not_asked', why=text)
        return rows
    class Reader(html.parser.HTMLParser):
        def __init__(self): super().__init__(); self.tags,self.texts,self.names = set(),[],set()
        def handle_starttag(self, tag, attrs): self.tags.add(tag); self.names |= {k for k,_ in attrs}
        def handle_data(self, data): self.texts.append(data)
    def read(source):
        r = Reader()
        r.feed(source)
        return r
    ok,rows = read(page(rows_with('name'), tmp_path/'plain', 'name').read_text('utf-8')),rows_with(text)
    want = legible(text).strip()
    right(lambda: read(page(rows, tmp_path/'out', text).read_text('utf-8')), lambda r: (r.tags,r.names)==(ok.tags,ok.names) and any(want in t for t in r.texts))
    right(rows._repr_html_, lambda s: not read(s).tags&{'script','b'} and any(want in t for t in read(s).texts) and s.count('mathjax_ignore')==2)
    assert sorted(p.name for p in tmp_path.iterdir())==['out','plain'] and not (tmp_path/'ran').exists()

@pytest.mark.parametrize('text', MARKUP, ids=ascii)
def test_text_in_markdown(text, right):
    "A table of Markdown shows it as it is written"
    import mistune
    right(lambda: mistune.html(as_table('head', 'a | b', [(text, 'x')])), lambda s: '<td>'+__import__('html').escape(text.strip(), quote=False) in s.replace('&quot;', '"') and '<script' not in s)

@pytest.mark.torture
def test_folders_with_such_names(tmp_path, right):
    "The whole way: folders of classes, a command, rows, figures, a page"
    (tmp_path/'tiny.py').write_text(TINY)
    names = [m.replace('/', '') for m in MARKUP if m!='..' and len(m)>1]
    pics = images('digits')
    for k,name in enumerate(names):
        d = tmp_path/'$x$ <b>'/name
        d.mkdir(parents=True)
        for i in range(8*k, 8*k+8): pics[i][0].save(d/f'{name[:9]} {i}.png')
    def go():
        code, = end(begin(probe_there, tmp_path, log=tmp_path/'log'))
        return code,(tmp_path/'log').read_bytes().decode('utf-8', 'replace')
    right(go, lambda o: o[0]==0 and 'Traceback' not in o[1])
    page = (tmp_path/'out/index.html').read_text('utf-8')
    assert '<script>' not in page and '$x$ &lt;b&gt;' in page and '<b>amp' not in page and not list(tmp_path.rglob('ran'))
    rows = Results.load(tmp_path/'out/rows.jsonl')
    assert sorted(rows.one(key='class_directions', control='given')['class_class'])==sorted(map(legible, names))

def probe_there(folder):
    from u1nb.cli import main
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    main('probe', ['--model','tiny:make','--data','$x$ <b>','--claims','C2,C4','--cells','4','--seeds','1','--device','cpu','--out','out'])
