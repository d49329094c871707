// Makes requests: guarded targets with valid parameters, then bent in the ways by which proxies have been walked around.
// One JSON object a line: `provider`, `method`, and `target` with one character for each byte.
'use strict';
const fs = require('node:fs');

const [requests, seed] = process.argv.slice(2).map(Number);

// mulberry32: small, seeded, the same everywhere.
let state = seed >>> 0;
const random = () => {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};
const below = (n) => Math.floor(random() * n);
const chance = (p) => random() < p;
const pick = (list) => list[below(list.length)];
const times = (n, make) => Array.from({ length: n }, make);
const bytes = (text) => Buffer.from(text, 'utf8').toString('latin1');
const hex = (code) => {
  const digits = code.toString(16).padStart(2, '0');
  return `%${chance(0.5) ? digits : digits.toUpperCase()}`;
};
const encode = (text, p = 1) => [...(text ?? '')].map((c) => (c.charCodeAt(0) > 0x7e || chance(p) ? hex(c.charCodeAt(0)) : c)).join('');

// ---- valid requests

const ID = 'ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789';
const id = () => times(pick([1, 3, 17, 17, 24, 24, 34]), () => ID[below(ID.length)]).join('');
const word = () => pick(['admin', 'user', 'owner', 'alice', 'GENERAL', 'a', '0', 'null', 'true', 'x'.repeat(40)]);
const text = () => pick(['', 'a', 'smith', 'two words', 'a+b', '50%', 'a&b=c', 'a;b', 'é', '漢字', '💬', '.*', '$ne', "o'neill", '"', '<b>', 'a/b', 'a\\b', 'a?b', 'a#b', '[x]', '{}']);
const number = () => String(pick([0, 1, 2, 5, 10, 25, 50, 99, 100]));
const sort = () => JSON.stringify(pick([{ username: 1 }, { username: -1 }, { name: 1, username: -1 }, {}]));
const fields = () => JSON.stringify(pick([{ userRooms: 1 }, { name: 1 }, {}, { a: { b: [1, 'x'] } }]));
const big = () => String(pick([0, 1, 7, 1234, 99999, 2147483647]));

const docusign = (prefix) => () => ({
  provider: 'docusign-rooms',
  path: `${prefix}/v2/accounts/${pick([id(), '8d6a3e3c-7b9f-4d37-9a3d-000000000001'])}/rooms/${big()}/users`,
  query: { count: () => String(1 + below(100)), startPosition: big, filter: text, sort: () => pick(['FirstNameAsc', 'LastNameAsc', 'EmailAsc', 'FirstNameDesc', 'LastNameDesc', 'EmailDesc', 'emailasc', 'LASTNAMEDESC']) },
});
const rocket = (path, query, required) => () => ({ provider: 'rocketchat', path, query, required });
const selector = () => pick(['userId', 'username', 'importId', 'email']);
const guarded = [
  rocket('/api/v1/audit/rooms.members', { roomId: id, filter: text, count: number, offset: number, sort }, ['roomId']),
  rocket('/api/v1/roles.getUsersInRole', { role: () => pick([word(), id()]), roomId: id, count: number, offset: number }, ['role']),
  rocket('/api/v1/rooms.roles', { rid: id }, ['rid']),
  () => {
    const one = selector();
    const value = { userId: id, username: () => pick([word(), 'b.o-b_1', 'josé']), importId: () => text() || 'i1', email: () => 'bob+x@example.org' }[one];
    return { provider: 'rocketchat', path: '/api/v1/users.info', query: { [one]: value, includeUserRooms: () => pick(['true', 'false', '']), fields }, required: [one] };
  },
  docusign(''),
  docusign('/restapi'),
];
const elsewhere = [
  '/', '/home', '/avatar/alice', '/file-upload/x/a%20b.txt', '/api', '/api/', '/api/info', '/api/v1', '/api/v1/me', '/api/v1/rooms.get',
  '/api/v1/users.list', '/api/v1/users.infox', '/api/v1/users.inf', '/api/v1/chat.sendMessage', '/api/v1/method.call/rooms%3Aget',
  '/api/v1/method.call/a%2Fb', '/api/v1/mcp', '/api/v1/users.info/x', '/api/v1/audit/rooms.membersx', '/api/v1/audit', '/api/experimental/x',
  '/apis/v1/users.info', '/v1/users.info', '/websocket', '/sockjs/1/abc/xhr', '/v2/accounts', '/v2/accounts/a/rooms', '/v2/accounts/a/rooms/1',
  '/v2/accounts/a/rooms/1/userz', '/v2/accounts/a/rooms/1/users/2', '/restapi/v2/accounts/a/users', '/restapi/v2', '/v3/accounts/a/rooms/1/users', '*',
];

// ---- bending the path

const DOTS = ['.', '%2e', '%2E', '%252e', '%c0%ae', '%u002e'];
const SLASHES = ['/', '%2f', '%2F', '%5c', '%5C', '\\', '//', '///', '%252f', '%c0%af', '%e0%80%af', '%255c', '/./', '/x/../', '/%2e/', '/x/%2e%2e/', '/.;/', '/;/', '\\\\', '/\t/', '/.%00/', '%u2215', '\u00ef\u00bc\u008f'];
const TAILS = ['/', '//', '.', '..', '/.', '/..', '/x/..', ';', ';x=1', ';/', '%', '%2', '%zz', '%00', '%20', '%0a', '%0d%0a', '%09', ' ', '\t', '.json', '.html', '/x', '#', '#x', '#/../x', '?', '%3f', '%3fa=b', '%23', '%3b', '\\', '%2f', '%5c', '\u0000', '\u00a0', '\u00ff', '*', '~', '+', ',', '=', '&', "'", ':', '@', '!', '$', '(', ')', '|', '"', '<', '{', '`', '^', '[', ']'];
const at = (path, what, make) => {
  const places = [...path].flatMap((c, i) => (what(c) ? [i] : []));
  if (!places.length) return path;
  const i = pick(places);
  return path.slice(0, i) + make(path[i]) + path.slice(i + 1);
};
const letter = (c) => /[a-z0-9]/i.test(c);
const bendPath = [
  (p) => at(p, letter, (c) => hex(c.charCodeAt(0))),
  (p) => at(p, letter, (c) => `%25${c.charCodeAt(0).toString(16)}`),
  (p) => at(p, letter, (c) => encode(hex(c.charCodeAt(0)))),
  (p) => at(p, letter, (c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase())),
  (p) => at(p, letter, (c) => bytes(String.fromCodePoint(0xff00 + c.charCodeAt(0) - 0x20))),
  (p) => at(p, letter, (c) => `%u00${c.charCodeAt(0).toString(16)}`),
  (p) => at(p, letter, (c) => bytes(pick(['ſ', 'K', 'İ', 'ı', c + '\u0301', c + '\u200b', c + '\u00ad']))),
  (p) => at(p, (c) => c === '.', () => pick(DOTS)),
  (p) => at(p, (c) => c === '/', () => pick(SLASHES)),
  (p) => at(p, (c) => c === '/', () => `/${pick(DOTS)}/`),
  (p) => at(p, (c) => c === '/', () => `/${id()}/${pick(DOTS)}${pick(DOTS)}/`),
  (p) => at(p, (c) => c === '/', () => `/${pick(['', 'x', '..', '.', '...', '.. ', '..;', '.;'])}/`),
  (p) => at(p, (c) => c === '/', () => `${pick([';', ';a=b', ';jsessionid=1'])}/`),
  (p) => at(p, () => true, (c) => c + String.fromCharCode(below(256))),
  (p) => at(p, () => true, () => ''),
  (p) => at(p, () => true, (c) => c + hex(below(256))),
  (p) => p + pick(TAILS),
  (p) => p + pick(TAILS),
  (p) => p.toUpperCase(),
  (p) => pick(['/', '//', '\\', '/\\', '/x/..', '/./', '/.', '', '/%2e', ' ', '/x/../..', '/..', '/%2e%2e', '/x;/..', '/x/%2e%2e', '/api/..', '/;', '.']) + p,
  (p) => p.replace(/^\//, ''),
  (p) => pick(['http://localhost', 'http://evil', 'HTTP://localhost', 'https://localhost:443', 'http://localhost@evil', 'ws://localhost', '//localhost', 'http:', 'http:/', 'http:\\\\localhost', 'x://', 'http://', 'http://localhost?', 'http://localhost#']) + p,
  (p) => encode(p, 0.3),
  (p) => p.replaceAll('/', pick(SLASHES)),
  (p) => { const segments = p.split('/'); const i = below(segments.length); segments[i] = encode(segments[i]); return segments.join('/'); },
  (p) => { const segments = p.split('/'); const i = below(segments.length); segments.splice(i, 1); return segments.join('/'); },
  (p) => pick(['/api', '/restapi', '/x', '/chat']) + p,
  (p) => p + p,
];

// ---- bending the query

const name = (pairs) => pick(pairs)[0];
const NUMBERS = ['-1', '1e3', '1e1', '0x10', '1.5', '1.0', 'Infinity', 'NaN', '+5', ' 5', '5 ', '007', '', '101', '9007199254740993', '0', '٣', '5,6', '1_0', 'null', 'true', '0b1', '-0'];
const bendQuery = [
  (q) => q.push([name(q), id()]),
  (q) => q.push(pick(q).slice()),
  (q) => { const one = pick(q); one[0] += pick(['[]', '[0]', '[1]', '[$ne]', '[a]', '%5B%5D', '%5b0%5D', '[', ']', '[][]', '[__proto__]', '.x', '.', '%00', '%20', '+', ' ', '[length]']); },
  (q) => { const one = pick(q); one[0] = pick([`[${one[0]}]`, `a.${one[0]}`, `a[${one[0]}]`, one[0].toUpperCase(), one[0].toLowerCase(), ` ${one[0]}`, `+${one[0]}`, bytes(`\u200b${one[0]}`), `amp;${one[0]}`, `$${one[0]}`]); },
  (q) => { const one = pick(q); one[0] = encode(one[0], 0.4); },
  (q) => { const one = pick(q); one[0] = encode(encode(one[0], 0.3), 0.3); },
  (q) => { const one = pick(q); one[1] = encode(one[1], 0.5); },
  (q) => { const one = pick(q); one[1] = pick(NUMBERS); },
  (q) => { const one = pick(q); one[1] = encode(bytes(pick([...NUMBERS, text(), sort(), fields()]))); },
  (q) => { const one = pick(q); one[1] += pick(['?', '?x=1', '#', '#x', '%', '%2', '%zz', '%ff', '%c0%80', '%00', '%0a', '%0d', '\u0000', '\u00ff', ' ', '\t', ';', ';x=1', '&', '&&', '&=', '&=x', '=', '==', '+', '%20', '%2B', '%26', '%3D', '\\', '/', '%2525', '%EF%BB%BF', '%e2%80%a8', '%ed%a0%80']); },
  (q) => q.push([pick(['__proto__', 'constructor', 'toString', 'hasOwnProperty', '__proto__[x]', 'constructor[prototype][x]', 'access_token', '_', 'query', 'fields', 'x', 'freeSwitchExtension', 'roomName', '_method', 'utf8', '0', '', 'length']), pick(['1', id(), '', '{}'])]),
  (q) => q.unshift([pick(['', 'x', '__proto__', 'userId', 'rid', 'roomId', 'role', 'username']), id()]),
  (q) => q.splice(below(q.length), 1),
  (q) => q.reverse(),
  (q) => { for (let i = 0; i < 120; i++) q.push([`a${i}`, '']); },
  (q) => { pick(q)[1] = 'a'.repeat(pick([254, 255, 256, 320, 2048, 2049, 9000])); },
  (q) => { pick(q).length = 1; },
  (q) => { const one = pick(q); one[1] = pick(['{"username":1}', '{"username": 1}', '{"a":1,"a":-1}', '{"__proto__":1}', '{"user\\u0052ooms":1}', '{"userRooms":1}', '{"a":1e400}', '{"a":1.0}', '{', '[]', 'null', '{"a":{"$gt":""}}', '{"1":1,"0":-1}', '{"b":1,"a":1}', '{"a":9007199254740993}', '{"a":0.1e1}', '{"a":-0}', '{"a":"\\ud800"}']); if (chance(0.7)) one[1] = encode(one[1], 1); },
];

const form = (value) => (chance(0.5) ? encodeURIComponent(value).replaceAll('%20', () => pick(['%20', '+'])) : encodeURIComponent(value).replace(/%(2B|25|26|23|3D|3F)|%(..)/g, (all, keep, other) => (keep || parseInt(other, 16) < 0x21 || parseInt(other, 16) > 0x7e ? all : chance(0.5) ? all : String.fromCharCode(parseInt(other, 16)))));

const one = () => {
  const base = chance(0.12) ? { provider: pick(['rocketchat', 'rocketchat', 'docusign-rooms']), path: pick(elsewhere), query: { x: text, rid: id, userId: id } } : pick(guarded)();
  let { path } = base;
  let query = Object.entries(base.query)
    .filter(([key]) => base.required?.includes(key) || chance(0.35))
    .map(([key, make]) => [key, form(make())]);
  if (chance(0.3)) query.sort(() => random() - 0.5);
  const bends = pick([0, 0, 0, 1, 1, 1, 2, 2, 3, 5]);
  for (let i = 0; i < bends; i++) {
    if (chance(0.5)) path = pick(bendPath)(path);
    else {
      if (!query.length) query.push(['x', '1']);
      pick(bendQuery)(query);
    }
  }
  let target = path;
  if (query.length) target += pick(chance(0.97) ? ['?'] : ['??', '%3f', '?&', '/?', ';?', '#?', '?#', '.?', ' ?', '']) + query.map((pair) => (pair.length < 2 ? pair[0] : `${pair[0]}=${pair[1] ?? ''}`)).join(chance(0.97) ? '&' : pick([';', '&&', '&amp;', ',', '%26']));
  if (chance(0.01)) target = times(below(30), () => String.fromCharCode(below(256))).join('');
  target = target.replace(/[^\u0000-\u00ff]+/gu, bytes);
  const method = chance(0.94) ? 'GET' : pick(['HEAD', 'POST', 'OPTIONS', 'PUT', 'DELETE', 'PATCH', 'get', 'Head', 'QUERY']);
  return { provider: base.provider, method, target };
};

let batch = '';
const flush = () => {
  const buffer = Buffer.from(batch);
  for (let from = 0; from < buffer.length; ) from += fs.writeSync(1, buffer, from);
  batch = '';
};
for (let i = 0; i < requests; i++) {
  batch += `${JSON.stringify(one())}\n`;
  if (batch.length > 1 << 16) flush();
}
flush();
