// The page, live. The server renders every part; this takes the parts that changed and puts them in
// place, keeping focus and scroll. One stream a browser: the tab that holds the lock reads it and tells
// the others. Where there is no stream, the page itself is asked for again.
'use strict';
(() => {
  const STALE_MS = 6000, POLL_AFTER_MS = 5000, POLL_EVERY_MS = 4000, RETRY_MS = 15000, ASK_EVERY_MS = 30000, PAGES_MAX = 8;
  const body = document.body, view = body.dataset.lang + '/' + body.dataset.page, self = Math.random().toString(36).slice(2);
  const live = document.getElementById('live'), updated = document.getElementById('updated'), ago = document.getElementById('ago');
  const html = new Map();
  // performance.now() of the newest contact, of the newest message of a stream, and of the newest poll.
  let heard = 0, streamedAt = 0, polledAt = 0;
  const startedAt = performance.now();

  // ---- parts

  const keyOf = (node) => node.nodeType === 1 ? node.dataset.key || node.dataset.metric || node.id || '' : '';

  // Makes `from` equal to `to`; nodes that stay are the same nodes, so focus, scroll and what a screen
  // reader has read stay too.
  function morph(from, to) {
    if (from.isEqualNode(to)) return;
    if (from.nodeType === 3) { from.data = to.data; return; }
    for (const { name } of [...from.attributes]) if (!to.hasAttribute(name) && name !== 'data-drawn') from.removeAttribute(name);
    for (const { name, value } of to.attributes) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    children(from, to);
  }

  function children(from, to) {
    const keyed = new Map();
    for (const child of from.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
    // What was drawn here is not the server's.
    const own = (node) => { while (node && node.className === 'plot') node = node.nextSibling; return node; };
    let at = own(from.firstChild);
    for (const next of [...to.childNodes]) {
      const key = keyOf(next);
      let same = key ? keyed.get(key) : at;
      if (same && (same.nodeType !== next.nodeType || same.nodeName !== next.nodeName || keyOf(same) !== key)) same = null;
      if (!same) { from.insertBefore(next, at); continue; }
      keyed.delete(key);
      if (same === at) at = own(at.nextSibling); else from.insertBefore(same, at);
      morph(same, next);
    }
    while (at) { const next = own(at.nextSibling); at.remove(); at = next; }
  }

  function put(name, text) {
    const part = document.querySelector(`[data-part="${name}"]`);
    if (!part || html.get(name) === text) return;
    html.set(name, text);
    const template = document.createElement('template');
    template.innerHTML = text;
    children(part, template.content);
    draw(part);
  }

  // ---- contact

  function say() {
    const age = performance.now() - (heard || startedAt), seconds = Math.round(age / 1000);
    const state = age > STALE_MS ? 'stale' : heard ? 'live' : 'off';
    const text = `${{ live: '●', stale: '■', off: '○' }[state]} ${live.dataset[state].replace('{}', seconds)}`;
    if (live.dataset.state !== state) {
      // Read aloud once: the lamp itself counts seconds.
      if (body.dataset.live) document.getElementById('told').textContent = text;
      live.dataset.state = body.dataset.live = state;
    }
    if (live.textContent !== text) live.textContent = text;
    ago.textContent = heard ? `(${updated.dataset.ago.replace('{}', seconds)})` : '';
  }

  function take(update) {
    if (update.view !== view) return;
    // An aggregator of another version runs now; its parts belong to its own page.
    if (update.build && update.build !== body.dataset.build) { location.reload(); return; }
    if (update.at_ms) {
      heard = performance.now();
      updated.dataset.at = update.at_ms;
      updated.textContent = update.updated;
    }
    for (const [name, text] of Object.entries(update.parts)) put(name, text);
    document.title = document.querySelector('.overall .mark').textContent[0] + document.title.slice(1);
    say();
  }

  async function poll() {
    if (document.hidden) return;
    try {
      const answer = await fetch(location.href, { cache: 'no-store' });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      const parts = {};
      for (const part of page.querySelectorAll('[data-part]')) parts[part.dataset.part] = part.innerHTML;
      const time = page.getElementById('updated');
      take({ view, at_ms: Number(time.dataset.at), updated: time.textContent, parts });
    } catch { /* the lamp says it */ }
  }

  function look() {
    say();
    const now = performance.now();
    if ((!channel || now - (streamedAt || startedAt) > POLL_AFTER_MS) && now - polledAt > POLL_EVERY_MS) { polledAt = now; poll(); }
  }
  // Without locks (a page that came over plain HTTP from another host) there is no stream, but polls.
  const channel = 'BroadcastChannel' in window && navigator.locks ? new BroadcastChannel('diarwatch') : null;
  setInterval(look, 1000);
  document.addEventListener('visibilitychange', look);

  // ---- one stream a browser

  if (channel) {
    let leads = false, source = null, carried = '', reopening = 0;
    const tabs = new Map([[self, view]]);

    const open = () => {
      reopening = 0;
      const views = [...new Set([view, ...tabs.values()])].slice(0, PAGES_MAX).sort().join(',');
      if (views === carried && source && source.readyState !== EventSource.CLOSED) return;
      if (source) source.close();
      carried = views;
      source = new EventSource('/api/v1/stream?views=' + encodeURIComponent(views));
      source.addEventListener('panels', (event) => {
        const update = JSON.parse(event.data);
        channel.postMessage({ update });
        if (update.view === view && update.at_ms) streamedAt = performance.now();
        take(update);
      });
      // A refusal is for good as far as the browser goes; a stream that broke comes back by itself.
      source.addEventListener('error', () => { if (source.readyState === EventSource.CLOSED) later(RETRY_MS); });
    };
    const later = (ms) => { if (leads && !reopening) reopening = setTimeout(open, ms); };
    const ask = () => {
      const before = new Map(tabs);
      tabs.clear();
      tabs.set(self, view);
      channel.postMessage({ who: true });
      // Who does not answer is gone; who is new has a page that the stream may not carry yet.
      setTimeout(() => { if ([...tabs.values()].some((name) => ![...before.values()].includes(name)) || tabs.size < before.size) later(0); }, 1000);
    };

    channel.addEventListener('message', ({ data }) => {
      if (data.update) {
        if (data.update.view === view && data.update.at_ms) streamedAt = performance.now();
        take(data.update);
      } else if (data.who) {
        channel.postMessage({ tab: self, view });
      } else if (data.tab) {
        if (data.view) tabs.set(data.tab, data.view); else tabs.delete(data.tab);
        if (leads && data.view && !carried.split(',').includes(data.view)) later(50);
      }
    });
    navigator.locks.request('diarwatch-stream', () => new Promise((done) => {
      leads = true;
      ask();
      later(100);
      const asking = setInterval(ask, ASK_EVERY_MS);
      addEventListener('pagehide', () => {
        leads = false;
        clearInterval(asking);
        clearTimeout(reopening);
        if (source) source.close();
        done();
      });
    }));
    channel.postMessage({ tab: self, view });
    addEventListener('pagehide', () => channel.postMessage({ tab: self }));
    // A page that comes back out of the browser's memory begins anew.
    addEventListener('pageshow', (event) => { if (event.persisted) location.reload(); });
  }

  // ---- charts

  const plots = new Map();
  let library = null;
  const loaded = () => library ??= new Promise((done, failed) => {
    const script = document.createElement('script');
    script.src = body.dataset.plot;
    script.onload = done;
    script.onerror = failed;
    document.head.append(script);
  });
  const color = (element, name) => getComputedStyle(element).getPropertyValue(name).trim();

  const units = {
    Ratio: (v) => v >= .1 || !v ? Math.round(v * 100) + '%' : (v * 100).toFixed(2) + '%',
    Bytes: (v) => (v / 2 ** 30).toFixed(1) + ' GiB',
    Watts: (v) => Math.round(v) + ' W',
    Celsius: (v) => Math.round(v) + ' °C',
    Seconds: (v) => v < 1 ? Math.round(v * 1000) + 'ms' : v.toFixed(2) + (body.dataset.lang === 'ja' ? '秒' : ' s'),
  };

  // The points of an SVG as columns over all steps; a step without a point is a gap.
  function columns(svg) {
    const begins = Number(svg.dataset.begins), step = Number(svg.dataset.step);
    const count = Math.ceil((Number(svg.dataset.ends) - begins) / step);
    const data = [Array.from({ length: count }, (_, at) => (begins + (at + .5) * step) / 1000)];
    for (const group of svg.querySelectorAll('.series')) {
      const [least, mean, largest] = [0, 1, 2].map(() => new Array(count).fill(null));
      for (const point of group.dataset.points.split(';').filter(Boolean)) {
        const [at, ...values] = point.split(',').map(Number);
        if (at >= 0 && at < count) [least[at], mean[at], largest[at]] = values;
      }
      data.push(mean, largest, least);
    }
    return data;
  }

  function options(svg, width) {
    const unit = units[svg.dataset.unit], top = Number(svg.dataset.top), soft = color(body, '--soft'), line = color(body, '--line');
    const series = [{ value: (_, v) => v == null ? '' : new Intl.DateTimeFormat(body.dataset.lang, { timeZone: body.dataset.zone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23', timeZoneName: 'short' }).format(v * 1000), label: '\u00a0' }], bands = [];
    const value = (_, v) => v == null ? '-' : unit(v);
    for (const group of svg.querySelectorAll('.series')) {
      const stroke = getComputedStyle(group).color, at = series.length;
      series.push({ label: group.dataset.name ? 'GPU ' + group.dataset.name : ' ', stroke, width: 1.5, value, points: { show: false } });
      for (const edge of [body.dataset.largest, body.dataset.least]) series.push({ label: edge, stroke: 'transparent', width: 0, value, points: { show: false }, class: 'edge' });
      bands.push({ series: [at + 1, at + 2], fill: stroke.replace('rgb(', 'rgba(').replace(')', ', .2)') });
    }
    const ends = Number(svg.dataset.ends) / 1000, day = Boolean(svg.dataset.warning);
    const axis = { stroke: soft, grid: { stroke: line, width: .5 }, ticks: { stroke: line, width: .5 } };
    const limit = (u, at, name) => {
      const level = Number(at);
      if (!at || level > top) return;
      const y = u.valToPos(level, 'y', true), { ctx, bbox } = u;
      ctx.save();
      ctx.strokeStyle = color(body, name);
      ctx.setLineDash([6, 4]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      ctx.restore();
    };
    return {
      width, height: Math.round(Math.max(140, Math.min(220, width * .42))), series, bands,
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), body.dataset.zone),
      cursor: { sync: { key: 'diarwatch' }, drag: { x: false, y: false } },
      scales: { x: { range: () => [Number(svg.dataset.begins) / 1000, ends] }, y: { range: () => [0, top] } },
      axes: [{ ...axis, values: (_, ticks) => ticks.map((at) => day && at === ends ? '24:00' : new Intl.DateTimeFormat('ja', { timeZone: body.dataset.zone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }).format(at * 1000)) }, { ...axis, size: 58, values: (_, ticks) => ticks.map(unit), ...(svg.dataset.unit === 'Bytes' ? { incrs: [.5, 1, 2, 4, 8, 16, 32, 64, 128].map((gib) => gib * 2 ** 30) } : {}) }],
      hooks: { draw: [(u) => { limit(u, svg.dataset.warning, '--warning'); limit(u, svg.dataset.critical, '--critical'); }] },
      legend: { live: true, show: true },
    };
  }

  async function draw(root) {
    const charts = [...root.querySelectorAll('svg.chart')];
    for (const [name, { plot, place }] of plots) {
      if (place.isConnected && !(name.startsWith(root.dataset.part + ':') && name.slice(root.dataset.part.length + 1) >= charts.length)) continue;
      plot.destroy();
      place.remove();
      plots.delete(name);
    }
    if (!charts.length) { root.removeAttribute('data-drawn'); return; }
    try { await loaded(); } catch { return; }
    for (const svg of charts) plot(svg);
  }

  // The drawing stands behind the part: what the server sends replaces the part only.
  function plot(svg) {
    if (!svg.isConnected) return;
    const holder = svg.parentElement, part = holder.closest('[data-part]');
    const name = part.dataset.part + ':' + [...part.querySelectorAll('svg.chart')].indexOf(svg);
    const width = Math.floor(holder.clientWidth);
    let known = plots.get(name);
    const shape = [svg.dataset.top, svg.querySelectorAll('.series').length, width, matchMedia('(prefers-color-scheme: dark)').matches].join();
    if (known && known.shape !== shape) { known.plot.destroy(); known.place.remove(); known = null; }
    if (!width) return;
    holder.dataset.drawn = '';
    if (known) { known.svg = svg; known.plot.setData(columns(svg)); return; }
    const place = document.createElement('div');
    place.className = 'plot';
    place.setAttribute('aria-hidden', 'true');
    if (holder === part) part.after(place); else holder.append(place);
    plots.set(name, { svg, place, shape, plot: new uPlot(options(svg, width), columns(svg), place) });
  }

  const redraw = () => { for (const part of document.querySelectorAll('[data-part]')) draw(part); };
  let resizing = 0;
  addEventListener('resize', () => { clearTimeout(resizing); resizing = setTimeout(redraw, 200); });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
  (window.requestIdleCallback || setTimeout)(redraw);
  say();
})();
