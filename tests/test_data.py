"Pictures: subsets hold the rows that they always held, and what is refused"
import hashlib, pickle
import numpy as np, pytest
from PIL import Image
from u1nb.core import rng
from u1nb.data import Images, Source, images, shifted, turned

def short(rows): return hashlib.sha256(np.asarray(rows, dtype='<i8').tobytes()).hexdigest()[:8]

#: set → (seed → what its parts held before a set had parts of its own)
HELD = {
    'digits': {0:dict(take50='09808988', take9='251ea4e2', take3='696c699e', halves=('6612a5f9','974ae625'), few='2ef67285', noisy='81b8cf9c',
                      fifth=('1239b30c','f3248786'), third=('6f49b4ad','db6b7997')),
               1:dict(halves=('3d019f1b','e02ae2df'), few='f1a5557b', noisy='8fa7fb05', fifth=('9eff026a','e17d3ea5'), third=('2040fd84','f82840e4')),
               3:dict(take50='fb5cf049', take9='66e2d558', take3='604d75f3')},
    'photos': {0:dict(take9='22736e83', take3='ae2d169f', halves=('e3b0c442','8d638659'), few='b5e48c65', noisy='3ac6b260', ungrouped=('bca5ed9d','c0ab117e')),
               1:dict(halves=('e3b0c442','8d638659'), few='7746eda1', noisy='fbb8df09', ungrouped=('b399c50f','42f1b883')),
               3:dict(take9='9b7a5ae7', take3='ffb9be2f')}}

@pytest.mark.parametrize('name,n,per_class', [('digits',200,3), ('photos',14,1)])
def test_parts_are_the_old_parts(name, n, per_class):
    ds = images(name, n=n)
    def at(part): return short(part.within(ds))
    def two(parts): return tuple(map(at, parts))
    def rows(parts): return tuple(short(p.index) for p in parts)
    for seed,held in HELD[name].items():
        got = {f'take{k}':at(ds.take(k, seed)) for k in (50,9,3) if k<n}
        got |= dict(halves=two(ds.halves(seed)), few=short(ds.few(per_class, seed).index), noisy=short(ds.noisy(.3, seed).labels),
                    fifth=rows(ds.hold_out(.2, seed)), third=rows(ds.hold_out(1/3, seed)))
        alone = Images(ds.pictures, ds.labels, ds.classes)
        got['ungrouped'] = tuple(short(p.within(alone)) for p in alone.hold_out(.2, seed))
        assert {k:got[k] for k in held}==held
    assert at(ds.take(n))==short(range(n)) and ds.halves()[0].split==f'{ds.split}, memory half'

def test_parts_of_parts():
    ds = images('digits', n=200)
    few = ds.take(100).take(20, 5)
    assert short(few.within(ds))=='b25b2cdc'
    assert (few.within(ds.take(100))==ds.take(100).take(20, 5).within(ds.take(100))).all()
    less = images('digits', n=40, seed=1).without(ds)
    assert (len(less), short(less.within(images('digits', n=40, seed=1))))==(36, '8b0b39a1')
    assert len(ds.without(ds.take(20)))==180 and ds.without(None) is ds and ds.without(shifted(ds)) is ds
    assert not set(ds.halves()[0].index)&set(ds.halves()[0].without(few).index)&set(few.index)

def test_no_group_in_both():
    "Groups of one to five pictures, in no order: hold-out and halves part none, and groups of one are no groups"
    for seed in range(20):
        gen = rng(seed, 'groups')
        y,g = gen.integers(3, size=90),gen.permutation(np.arange(90)//gen.integers(1, 6))
        ds = Images([None]*90, y, 'abc', g)
        for a,b in (ds.hold_out(.3, seed), ds.halves(seed)):
            assert not set(a.groups)&set(b.groups) and len(a)+len(b)==90
            assert len(np.unique(np.concatenate([a.index, b.index])))==90
        names = gen.permutation(90)                     # each picture its own group, under any name
        one,none = Images([None]*90, y, 'abc', names),Images([None]*90, y, 'abc')
        assert [p.index.tolist() for p in one.hold_out(.3, seed)]==[p.index.tolist() for p in none.hold_out(.3, seed)]

def test_rows_carry_what_pictures_have():
    ds = images('photos', n=14)
    ds.theta = np.arange(14)/14
    part = ds.take([3,1,1])
    assert (part.theta==ds.theta[[3,1,1]]).all() and part.groups.tolist()==ds.groups[[3,1,1]].tolist()
    assert (part.name,part.classes,part.split)==(ds.name,ds.classes,ds.split) and len(ds)==14
    assert ds.take(ds.labels==2).labels.tolist()==[2,2]
    assert np.array_equal(part[0][0], ds[3][0])
    again = pickle.loads(pickle.dumps(shifted(part)))
    assert np.array_equal(again[2][0], shifted(part)[2][0])

def test_refusals():
    ds = images('digits', n=20)
    with pytest.raises(ValueError, match='no part of'): ds.within(images('photos', n=7))
    with pytest.raises(ValueError, match='no part of'): ds.within(ds.take(5))
    with pytest.raises(ValueError, match='at least one'): ds.take(0)
    with pytest.raises(ValueError, match='at least 1'): ds.few(0)
    with pytest.raises(ValueError, match='between 0 and 1'): ds.hold_out(1)
    with pytest.raises(ValueError, match='between 0 and 1'): ds.noisy(2)
    with pytest.raises(ValueError, match='no other'): Images([0], [0], 'a').noisy(.5)
    with pytest.raises(ValueError, match='each of the 20'): ds.relabelled([1,2])
    with pytest.raises(IndexError): ds.take([20])
    with pytest.raises(ValueError, match="not 'down'"): turned(ds, 'down')

def test_any_data_set():
    "A data set of someone else's: its labels, classes and groups, or those read from its items"
    img = Image.new('L', (6,4), 9)
    ds = images([(img,1), (img,0)])
    assert (ds.labels.tolist(), ds.classes, ds[0][0].mode, ds.name)==([1,0], ['0','1'], 'RGB', 'list')
    class Own:
        targets,classes,groups,threads = [0,1,1],['cat','cup'],['a','b','b'],True
        def __len__(self): return 3
        def __getitem__(self, i): return img,self.targets[i]
    ds = images(Own())
    assert (ds.name,ds.classes,ds.groups.tolist(),ds.threads,len(images(Own(), n=2)))==('Own', ['cat','cup'], ['a','b','b'], True, 2)
    assert images(ds) is ds and len(images(ds, n=2))==2

def test_look_tells_parts_apart():
    ds = images('digits', n=200)
    small = lambda img: np.asarray(img, dtype=np.float32).transpose(2, 0, 1)/255
    looks = [Source(o, small).look() for o in (ds, ds.take(100), ds.take(100, 1), shifted(ds), shifted(ds, 1), shifted(ds.take(100)), shifted(ds.take(100, 1)), turned(ds, 'mirrored'), ds.noisy(.2))]
    assert len({str(o) for o in looks})==len(looks)
    assert len({o['known'] for o in looks[1:3]+looks[5:7]})==4
