// every word must stand in the section; a word in its heading counts more
const box = document.getElementById('search'), list = document.getElementById('found')
const plain = s => s.toLowerCase().normalize('NFKD').replace(/[\u0300-\u036f]/g, '')
const entries = SECTIONS.map(([page, title, id, heading, text]) => ({page, title, id, heading, text, head: plain(heading), all: plain(`${title} ${heading} ${text}`)}))
function search() {
  const words = plain(box.value).split(/\s+/).filter(Boolean)
  list.replaceChildren(); list.hidden = !words.length
  if (!words.length) return
  const score = e => words.reduce((n, w) => n + (e.head === w ? 8 : e.head.includes(w) ? 3 : 1), 0)
  const hits = entries.filter(e => words.every(w => e.all.includes(w))).sort((a, b) => score(b) - score(a))
  for (const e of hits.slice(0, 20)) {
    const item = document.createElement('li'), link = document.createElement('a'), at = Math.max(0, plain(e.text).indexOf(words[0]) - 40)
    link.href = `${e.page}.html#${e.id}`; link.textContent = e.heading === e.title ? e.title : `${e.title}: ${e.heading}`
    item.append(link, ' ', e.text.slice(at, at + 140)); list.append(item)
  }
  if (!hits.length) list.append('Nothing found')
}
box.addEventListener('input', search)
box.form.addEventListener('submit', e => { e.preventDefault(); list.querySelector('a')?.click() })
list.addEventListener('click', e => { if (e.target.closest('a')) list.hidden = true })
document.addEventListener('keydown', e => { if (e.key === 'Escape') { box.value = ''; search() } })
