// Keeps a board live, of locks or of mounts: its element says which events tell of news. Without it the page is whole, and says when it was made.
(() => {
  'use strict';
  const board = document.getElementById('board');
  const dialog = document.getElementById('dialog');
  if (!board) return;
  const live = document.getElementById('live');
  const summary = document.getElementById('summary');
  // Fetched twice a second at most, and once more after the last event.
  const PAUSE_MS = 500;
  const RETRY_MS = 3000;
  let source = null;
  let fetched_at = 0;
  let timer = 0;

  const say = (text) => { if (live.textContent !== text) live.textContent = text; };
  const refresh = () => {
    timer = 0;
    fetched_at = Date.now();
    htmx.trigger(board, 'refresh');
  };
  const refresh_soon = () => {
    if (!timer) timer = setTimeout(refresh, Math.max(0, fetched_at + PAUSE_MS - Date.now()));
  };
  const listen = () => {
    if (source || document.hidden) return;
    source = new EventSource(board.dataset.events);
    source.onopen = () => { say('Live'); refresh_soon(); };
    source.onerror = () => {
      say('Away: trying again …');
      // What was refused is not tried again by itself.
      if (source && source.readyState === EventSource.CLOSED) { source = null; setTimeout(listen, RETRY_MS); }
    };
    for (const name of board.dataset.names.split(/\s+/)) source.addEventListener(name, refresh_soon);
  };
  // A tab that nobody sees takes no connection.
  const mind = () => {
    if (!document.hidden) return listen();
    if (source) source.close();
    source = null;
  };

  const rough = (ms) => {
    const s = Math.floor(ms / 1000);
    if (s < 60) return `${s}s`;
    if (s < 3600) return `${Math.floor(s / 60)}m${s % 60}s`;
    if (s < 86400) return `${Math.floor(s / 3600)}h${Math.floor(s % 3600 / 60)}m`;
    return `${Math.floor(s / 86400)}d${Math.floor(s % 86400 / 3600)}h`;
  };
  const age = () => {
    for (const time of board.querySelectorAll('time[data-age]')) {
      time.textContent = rough(Math.max(0, Date.now() - Date.parse(time.dateTime)));
    }
  };

  document.addEventListener('htmx:afterSwap', (event) => {
    if (event.target === dialog) {
      if (!dialog.open) dialog.showModal();
      return;
    }
    const now = document.getElementById('of-now');
    const said = now ? now.dataset.summary : '';
    // Said aloud by screen readers: only when it is something else.
    if (summary.textContent !== said) summary.textContent = said;
  });
  document.addEventListener('htmx:responseError', (event) => {
    // Signed out meanwhile: the page itself leads to where one signs in.
    if (event.detail.xhr.status === 401) location.reload();
  });
  if (dialog) dialog.addEventListener('click', (event) => {
    if (!event.target.closest('[data-close]')) return;
    event.preventDefault();
    dialog.close();
  });
  document.addEventListener('visibilitychange', mind);
  addEventListener('pagehide', () => { if (source) source.close(); source = null; });
  addEventListener('pageshow', mind);
  setInterval(age, 1000);
  mind();
})();
