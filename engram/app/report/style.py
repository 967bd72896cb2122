"""The look of the page: light and dark, wide and narrow, screen and paper. Colours are Okabe and Ito's, told apart by all."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1f24; --soft: #5b6470; --line: #d8dde3; --paper: #ffffff; --page: #f5f6f8; --blue: #0072b2; --red: #c04f00;
  --green: #00795a; --purple: #a8558a; --warn: #fff4d6; --warn-line: #d49b00; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e8eaed; --soft: #9aa4b0; --line: #343b44; --paper: #1a1f26; --page: #11151a; --blue: #56b4e9; --red: #f0913a;
  --green: #2fc79b; --purple: #d99ac5; --warn: #3a2f10; --warn-line: #d49b00; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 64px; }
h1, h2, h3 { line-height: 1.25; margin: 0; text-wrap: balance; }
header p.kind { color: var(--soft); margin: 0 0 4px; }
h1 { font-size: 1.75rem; font-weight: 650; letter-spacing: -0.01em; }
h2 { font-size: 1.25rem; font-weight: 650; margin: 44px 0 14px; }
h3 { font-size: 0.95rem; font-weight: 600; margin: 22px 0 8px; } figure h3, h2 + h3 { margin-top: 0; }
p { max-width: 72ch; }
p.soft, figcaption { color: var(--soft); font-size: 0.875rem; }
figcaption { margin-top: 8px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(215px, 1fr)); gap: 12px; margin-top: 22px; }
.tile, figure, .card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 1.45rem; font-weight: 650; font-variant-numeric: tabular-nums; line-height: 1.3; }
.tile span { display: block; color: var(--soft); font-size: 0.84rem; line-height: 1.35; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 430px), 1fr)); gap: 16px; align-items: start; }
figure { margin: 0; padding: 16px; min-width: 0; }
figure.wide { max-width: 860px; }
svg { display: block; width: 100%; height: auto; max-height: 640px; overflow: visible; }
svg text { font-family: inherit !important; }
.card { padding: 16px; }
.note { background: var(--warn); border-left: 4px solid var(--warn-line); border-radius: 6px;
  padding: 10px 14px; margin: 12px 0; }
ul.faces { list-style: none; margin: 0; padding: 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr));
  gap: 12px; }
ul.faces li { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 8px; font-size: 0.84rem;
  line-height: 1.35; overflow-wrap: anywhere; }
figure > img { max-width: 100%; }
ul.faces img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: pixelated;
  background: #808080; border-radius: 6px; margin-bottom: 6px; }
.right { color: var(--green); font-weight: 600; } .wrong { color: var(--red); font-weight: 600; }
.scroll { overflow-x: auto; background: var(--paper); border: 1px solid var(--line); border-radius: 10px; margin: 12px 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: 10px 14px 4px; font-size: 0.84rem; }
th, td { text-align: left; padding: 6px 14px; border-top: 1px solid var(--line); font-weight: 400; vertical-align: top; }
thead th { color: var(--soft); border-top: 0; white-space: nowrap; } tbody th { font-weight: 600; white-space: nowrap; }
.texts :is(td, tbody th) { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 11em; font-weight: 400; }
td.n, td .right, td .wrong { white-space: nowrap; } .grid > .scroll { margin: 0; } .grid + .grid { margin-top: 16px; }
.n { text-align: right; }
dl { display: grid; grid-template-columns: minmax(110px, max-content) 1fr; gap: 6px 18px; margin: 0; font-size: 0.92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
pre { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; overflow-x: auto;
  font-size: 0.85rem; line-height: 1.5; margin: 10px 0; }
code { font-family: ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", monospace; }
details { margin: 12px 0; } summary { cursor: pointer; color: var(--blue); }
:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
footer { margin-top: 56px; color: var(--soft); font-size: 0.84rem; }
@media (max-width: 560px) { main { padding: 20px 14px 48px; } h1 { font-size: 1.35rem; } figure { padding: 12px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; } .tile b { font-size: 1.2rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; }
  ul.faces { grid-template-columns: repeat(auto-fill, minmax(92px, 1fr)); gap: 8px; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #ccc; --paper: #fff; --page: #fff;
  --blue: #0072b2;   --red: #c04f00; --green: #00795a; --purple: #a8558a; --warn: #fff4d6; }
  body { font-size: 11pt; } main { max-width: none; padding: 0; } figure, .tile, li, tr, pre { break-inside: avoid; }
  h2 { break-after: avoid; } .scroll { overflow: visible; } }
"""
