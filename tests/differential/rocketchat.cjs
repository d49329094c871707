// What Rocket.Chat reads a request with: its router, its query parser and its published validators, out of the packages that
// `install` puts into a folder.
'use strict';
const path = require('node:path');
const { createRequire } = require('node:module');

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

// Names that the validator takes and nothing reads.
const IGNORED = { 'roles.getUsersInRole': ['sort', 'query'] };

const of = (cache) => {
  const load = createRequire(path.resolve(cache, 'package.json'));
  const typings = require(path.resolve(cache, 'typings.cjs'));
  const qs = load('qs');
  const { Hono } = load('hono');
  const { getPath, mergePath } = load('hono/utils/url');

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

  // The values that the server would read in a target, or null when it refuses to read or to route it as this action.
  const asked = (action, target) => {
    const url = address(target);
    if (url === null || routed(url) !== action) return null;
    const [query] = parsed(url);
    return query !== null && rocketchat[action][1](query) ? query : null;
  };

  // What is wrong with forwarding `sends` for what was received as `target` and judged as `params`; null when nothing is.
  const forwarded = (target, { action, params, sends }) => {
    const url = address(sends);
    if (url === null) return 'what is sent is no address to Node';
    if (url !== `http://localhost${sends}`) return `what is sent is rewritten by the URL parser: ${url}`;
    const [query, older] = parsed(url);
    if (query === null) return 'what is sent is refused by the query parser';
    if (!same(query, older)) return 'what is sent reads otherwise to an older server';
    if (routed(url) !== action) return `what is sent reaches ${routed(url)}`;
    if (!same(query, texts(params))) return `what is sent has other values: ${JSON.stringify(query)}`;
    const [, accepts] = rocketchat[action];
    if (!accepts(query)) return `what is sent is refused by the validator: ${accepts.errors?.map((error) => error.message)}`;
    if (!same(query, params)) return `what is sent is coerced to other values: ${JSON.stringify(query)}`;
    // The same target as it was received, where the server would have accepted it.
    const meant = asked(action, target);
    for (const name of meant === null ? [] : (IGNORED[action] ?? [])) delete meant[name];
    return meant !== null && !same(meaning(meant), meaning(params)) ? `as received it means ${JSON.stringify(meant)}` : null;
  };

  // The router and the parser are used as parts; here they are compared with the whole application once.
  const check = async () => {
    for (const target of ['/api/v1/users.info', '/api/v1/users%2einfo?x', '/api/v1/x/../rooms.roles', '/api/v1\\users.info', '/api/v1/Users.info', '/api/v1/users.info/', '/x', '/api/v1/users.info#a?b']) {
      const answer = await app.request(target);
      const whole = answer.status === 200 ? await answer.text() : undefined;
      if (whole !== routed(address(target))) throw new Error(`the oracle is out of order: ${target} is ${whole} to hono, ${routed(address(target))} here`);
    }
  };

  return { routes: rocketchat, address, routed, parsed, asked, forwarded, check };
};

module.exports = { of, same, texts };
