// Holds rolegate's verdicts against what the servers make of the same targets. Reads the lines of the example `judge`.
//
// What rolegate forwards must read in Node exactly as rolegate judged it: same route, same values, accepted by the published
// validator. What it forwards, as received, must mean the same wherever the server would have accepted it. What rolegate
// leaves open must be no guarded route: not to Rocket.Chat's router, not after a further decoding, not to a server that
// forgives everything.
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const { createRequire } = require('node:module');

const [cache, keep] = process.argv.slice(2);
const load = createRequire(path.resolve(cache, 'package.json'));
const typings = require(path.resolve(cache, 'typings.cjs'));
const qs = load('qs');
const { Hono } = load('hono');
const { getPath, mergePath } = load('hono/utils/url');

// ---- Rocket.Chat

// The validators that stand inside the server and not in the package, compiled by the package's own validator.
const inline = (properties, required) => typings.ajvQuery.compile({ type: 'object', properties, required, additionalProperties: false });
const string = { type: 'string' };
const rocketchat = {
  'audit.rooms.members': ['/api/v1/audit/rooms.members', inline({ roomId: { type: 'string', minLength: 1 }, filter: string, count: { type: 'number' }, offset: { type: 'number' }, sort: string }, ['roomId'])],
  'roles.getUsersInRole': ['/api/v1/roles.getUsersInRole', typings.isRolesGetUsersInRoleProps],
  'rooms.roles': ['/api/v1/rooms.roles', inline({ rid: string }, ['rid'])],
  'users.info': ['/api/v1/users.info', typings.isUsersInfoParamsGetProps],
};
const app = new Hono();
const handlers = new Map();
for (const [action, [route]] of Object.entries(rocketchat)) {
  const handler = (c) => c.text(action);
  handlers.set(handler, action);
  app.get(route, handler);
}

// As hono's `request` and `fetch` do with the target that Node hands them, one character for each byte.
const address = (target) => {
  try {
    return new URL(/^https?:\/\//.test(target) ? target : `http://localhost${mergePath('/', target)}`).href;
  } catch {
    return null;
  }
};
const routed = (url) => {
  const [found] = app.router.match('GET', getPath({ url }));
  return found.length ? handlers.get(found[0][0][0] ?? found[0][0]) : undefined;
};
// The text between the first and the second question mark, as current servers and as those before 8 read it.
const parsed = (url) => {
  const text = url.split('?')[1] || '';
  try {
    return [qs.parse(text, { arrayLimit: 500, throwOnLimitExceeded: true }), qs.parse(text)];
  } catch {
    return [null, null];
  }
};

// ---- DocuSign: no parser of its vendor is public. ASP.NET's rules: names and literals in any case, segments decoded once.

const once = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};
const room = (segments) => {
  const rest = segments[0] === 'restapi' ? segments.slice(1) : segments;
  return rest.length === 6 && rest[0] === 'v2' && rest[1] === 'accounts' && rest[3] === 'rooms' && rest[5] === 'users';
};
const docusign = (url) => {
  const segments = new URL(url).pathname.split('/').slice(1).map(once);
  if (!room(segments.map((segment) => segment.toLowerCase()))) return undefined;
  const [accountId, , roomId] = segments.slice(-4);
  return { accountId, roomId };
};
const SORTS = ['firstnameasc', 'lastnameasc', 'emailasc', 'firstnamedesc', 'lastnamedesc', 'emaildesc'];
const docusignAccepts = ({ roomId, count, startPosition, sort }) => {
  const whole = (value, least, most) => value === undefined || (/^\d+$/.test(value) && Number(value) >= least && Number(value) <= most);
  return whole(roomId, 0, 2147483647) && whole(count, 1, 100) && whole(startPosition, 0, 2147483647) && (sort === undefined || SORTS.includes(sort.toLowerCase()));
};

// ---- A server that forgives everything

const decoded = (text) => text.replace(/%([0-9a-f]{2})/gi, (all, digits) => String.fromCharCode(parseInt(digits, 16)));
const forgiving = ({ provider, target: received }) => {
  let text = received.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/\\?#]*/i, '');
  for (let decodings = 0; decodings < 3; decodings++) {
    for (const cut of [/[?#].*/s, /\?.*/s]) {
      const kept = [];
      for (const segment of text.replace(cut, '').toLowerCase().split(/[/\\]/)) {
        const bare = segment.replace(/;.*/s, '').replace(/^[\0-\x20]+|[\0-\x20]+$/g, '');
        if (bare === '..') kept.pop();
        else if (bare !== '' && bare !== '.') kept.push(bare);
      }
      const found = ([route]) => route.toLowerCase() === `/${kept.join('/')}`;
      if (provider === 'rocketchat' ? Object.values(rocketchat).some(found) : room(kept)) return true;
    }
    text = decoded(text);
  }
  return false;
};

// ---- The comparison

const entries = (record) => Object.entries(record ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
const same = (a, b) => JSON.stringify(entries(a)) === JSON.stringify(entries(b));
const texts = (record) => Object.fromEntries(entries(record).map(([name, value]) => [name, String(value)]));
// An empty value of a nullable parameter is none, and of JSON only the meaning counts.
const meaning = (record) =>
  Object.fromEntries(entries(record).filter(([, value]) => value !== null && value !== '').map(([name, value]) => {
    if (name === 'fields' || name === 'sort') {
      try {
        return [name, JSON.stringify(JSON.parse(value))];
      } catch {
        // compared as it stands
      }
    }
    return [name, value];
  }));

const forwarded = ({ provider, target }, { action, params, sends }) => {
  const url = address(sends);
  if (url === null) return 'what is sent is no address to Node';
  if (url !== `http://localhost${sends}`) return `what is sent is rewritten by the URL parser: ${url}`;
  const [query, older] = parsed(url);
  if (query === null) return 'what is sent is refused by the query parser';
  if (!same(query, older)) return 'what is sent reads otherwise to an older server';
  if (provider === 'docusign-rooms') {
    const segments = docusign(url);
    if (!segments) return 'what is sent is not the route';
    const values = { ...segments, ...query };
    if (!same(values, texts(params))) return `what is sent has other values: ${JSON.stringify(values)}`;
    return docusignAccepts(values) ? null : 'what is sent has values out of their bounds';
  }
  if (routed(url) !== action) return `what is sent reaches ${routed(url)}`;
  if (!same(query, texts(params))) return `what is sent has other values: ${JSON.stringify(query)}`;
  const [, accepts] = rocketchat[action];
  if (!accepts(query)) return `what is sent is refused by the validator: ${accepts.errors?.map((error) => error.message)}`;
  if (!same(query, params)) return `what is sent is coerced to other values: ${JSON.stringify(query)}`;
  // The same target as it was received, where the server would have accepted it.
  const received = address(target);
  const [asked] = received === null ? [null] : parsed(received);
  if (asked !== null && routed(received) === action && accepts(asked) && !same(meaning(asked), meaning(params))) {
    return `as received it means ${JSON.stringify(asked)}`;
  }
  return null;
};

const guardedInNode = ({ provider, target }) => {
  const readings = [target, decoded(target)].map(address).filter((url) => url !== null);
  return readings.some((url) => (provider === 'rocketchat' ? routed(url) : docusign(url)) !== undefined);
};

const counts = new Map();
const count = (what) => counts.set(what, (counts.get(what) ?? 0) + 1);
let total = 0;
let disagreements = 0;
const kept = keep ? fs.openSync(keep, 'w') : undefined;

const judge = (line) => {
  const { request, rolegate } = JSON.parse(line);
  total += 1;
  const reads = ['GET', 'HEAD'].includes(request.method.toUpperCase());
  let wrong = null;
  if (rolegate.verdict === 'forwarded') {
    wrong = forwarded(request, rolegate);
    count(`forwarded ${rolegate.action}`);
  } else if (rolegate.verdict === 'open') {
    if (reads && guardedInNode(request)) wrong = 'Node reads it as a guarded route';
    else if (reads && forgiving(request)) wrong = 'a forgiving server reads it as a guarded route';
    count(`open      ${rolegate.as}`);
  } else {
    count(`refused   ${rolegate.reason}${reads && guardedInNode(request) ? ', though a guarded route to Node' : ''}`);
  }
  if (wrong !== null) {
    disagreements += 1;
    if (disagreements <= 20) console.error(`DISAGREE: ${wrong}\n  ${line}`);
  }
  if (kept !== undefined) fs.writeSync(kept, `${line}\n`);
};

// The router and the parser are used as parts; here they are compared with the whole application once.
const check = async () => {
  for (const target of ['/api/v1/users.info', '/api/v1/users%2einfo?x', '/api/v1/x/../rooms.roles', '/api/v1\\users.info', '/api/v1/Users.info', '/api/v1/users.info/', '/x', '/api/v1/users.info#a?b']) {
    const answer = await app.request(target);
    const whole = answer.status === 200 ? await answer.text() : undefined;
    if (whole !== routed(address(target))) throw new Error(`the oracle is out of order: ${target} is ${whole} to hono, ${routed(address(target))} here`);
  }
};

check().then(() => {
  const chunk = Buffer.alloc(1 << 20);
  let rest = Buffer.alloc(0);
  for (;;) {
    const length = fs.readSync(0, chunk);
    const bytes = Buffer.concat([rest, chunk.subarray(0, length)]);
    const end = length === 0 ? bytes.length : bytes.lastIndexOf(10) + 1;
    for (const line of bytes.toString('utf8', 0, end).split('\n')) if (line !== '') judge(line);
    if (length === 0) break;
    rest = Buffer.from(bytes.subarray(end));
  }
  for (const [what, times] of [...counts].sort()) console.log(`${String(times).padStart(9)}  ${what}`);
  console.log(`${String(total).padStart(9)}  in all, ${disagreements} disagreements`);
  process.exitCode = disagreements > 0 || total === 0 ? 1 : 0;
});
