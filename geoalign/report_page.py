"""The frame of the report page: its skeleton, style and script. `report` fills it."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}: change report</title><style>{style}</style></head>
<body><header><p class=brand>geoalign</p><h1>{title}</h1>{head}</header><main>{body}</main>
<script>{script}</script></body></html>
"""

STYLE = """
:root{--ink:#1b1f24;--soft:#5b6570;--line:#d9dee3;--paper:#fff;--tint:#f4f6f8;--key:#005a8c;
--bad:#a33b00}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#9aa5b0;--line:#39424b;--paper:#14181c;--tint:#1d2329;
--key:#6cb8e6;--bad:#ff9c66}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:24px 28px 60px;color:var(--ink);background:var(--paper);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
.brand{margin:0;color:var(--key);font-weight:600;letter-spacing:.04em}
h1{margin:0;font-size:32px;line-height:1.2}
h2{margin:44px 0 12px;font-size:20px;border-bottom:1px solid var(--line);padding-bottom:6px}
h3{margin:22px 0 8px;font-size:16px}
.lead{color:var(--soft);margin:4px 0 20px}
.note,figcaption{color:var(--soft);font-size:13px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:12px}
.card{background:var(--tint);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.label{color:var(--soft);font-size:13px}.figure{font-size:25px;font-weight:600;line-height:1.3}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:20px;align-items:start}
figure{margin:0}figure img,figure svg{max-width:100%;height:auto;display:block}
.map img{border-radius:6px;border:1px solid var(--line);width:100%}
svg text{fill:currentColor}svg *{stroke-linejoin:round;stroke-linecap:butt}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13px}
th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:600;white-space:nowrap}
td:last-child{min-width:220px}td.n:last-child{min-width:0}.d{white-space:nowrap}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.sortable{font-size:12px}.sortable th,.sortable td{padding-right:8px}
.sortable th{cursor:pointer}.sortable th[aria-sort]{color:var(--ink)}
.sortable td:last-child{min-width:0}
.sortable th[aria-sort=ascending]::after{content:" ↑"}.sortable th[aria-sort=descending]::after{content:" ↓"}
code,pre{font:12px/1.45 ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}
pre{background:var(--tint);padding:12px;border-radius:6px;overflow-x:auto}
.bad{color:var(--bad);font-weight:600}
a{color:var(--key)}
details summary{cursor:pointer;margin:8px 0}
.frame{position:relative;overflow:hidden;border-radius:6px;border:1px solid var(--line);--cut:50%}
.frame img{width:100%;background:#777}
.frame .top{position:absolute;top:0;left:0;clip-path:inset(0 0 0 var(--cut))}
.frame i{position:absolute;top:0;bottom:0;left:var(--cut);width:2px;margin-left:-1px;background:#fff;
box-shadow:0 0 3px #000}
.tag{position:absolute;top:8px;left:8px;background:#000a;color:#fff;font-size:12px;padding:1px 7px;border-radius:4px}
.tag.right{left:auto;right:8px}
input[type=range]{width:100%;margin:8px 0 2px;accent-color:var(--key)}
@media print{@page{margin:13mm}
body{max-width:none;padding:0;font-size:10.5px}h1{font-size:24px}h2{margin:22px 0 8px;font-size:15px;break-after:avoid}
h3{margin:10px 0 4px;font-size:12px;break-after:avoid}.note,figcaption{font-size:9.5px}
article,figure,tr,.card{break-inside:avoid}
.cards{grid-template-columns:repeat(4,1fr);gap:8px}.card{padding:6px 8px}.figure{font-size:17px}.label{font-size:10px}
.pair{grid-template-columns:minmax(0,9fr) minmax(0,11fr);gap:12px}
.scroll{overflow:visible}table{font-size:8.5px}th,td{padding:2px 6px 2px 0}th{white-space:normal}
td:last-child{min-width:0}.sortable{font-size:8px}.sortable th,.sortable td{padding-right:5px}
code,pre{font-size:8px}
input[type=range],.frame i{display:none}.frame .top{position:static;clip-path:none}.tag.right{top:calc(50% + 8px)}
a{color:inherit}}
"""

SCRIPT = """
document.querySelectorAll('.swipe').forEach(function(s){var f=s.querySelector('.frame'),r=s.querySelector('input');
function set(v){f.style.setProperty('--cut',v+'%')}
r.addEventListener('input',function(){set(r.value)});
f.addEventListener('pointermove',function(e){if(e.pointerType!=='mouse'&&!e.buttons)return;
var b=f.getBoundingClientRect(),v=Math.max(0,Math.min(100,100*(e.clientX-b.left)/b.width));r.value=v;set(v)})});
document.querySelectorAll('table.sortable').forEach(function(t){var body=t.tBodies[0];
t.querySelectorAll('th').forEach(function(h,k){h.tabIndex=0;
function sort(){var down=h.getAttribute('aria-sort')==='ascending',sign=down?-1:1;
t.querySelectorAll('th').forEach(function(o){o.removeAttribute('aria-sort')});
h.setAttribute('aria-sort',down?'descending':'ascending');
function key(r){var v=r.cells[k].textContent.trim();return v==='–'?null:h.classList.contains('n')?parseFloat(v):v}
Array.from(body.rows).sort(function(a,b){var x=key(a),y=key(b);
if(x===null||y===null)return(x===null)-(y===null);return sign*(x<y?-1:x>y?1:0)}).forEach(function(r){body.append(r)})}
h.addEventListener('click',sort);
h.addEventListener('keydown',function(e){if(e.key==='Enter'||e.key===' '){e.preventDefault();sort()}})})});
"""
