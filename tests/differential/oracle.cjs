// Holds rolegate's verdicts against what the servers make of the same targets. Reads the lines of the example `judge`.
//
// What rolegate forwards must read in Node exactly as rolegate judged it: same route, same values, accepted by the published
// validator. What it forwards, as received, must mean the same wherever the server would have accepted it. What rolegate
// leaves open must be no guarded route: not to Rocket.Chat's router, not after a further decoding, not to a server that
// forgives everything.
'use strict';
const fs = require('node:fs');
const { of, same, texts } = require('./rocketchat.cjs');

const [cache, keep] = process.argv.slice(2);
const rocketchat = of(cache);
const { address, routed, parsed } = rocketchat;

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
      if (provider === 'rocketchat' ? Object.values(rocketchat.routes).some(found) : room(kept)) return true;
    }
    text = decoded(text);
  }
  return false;
};

// ---- The comparison

const forwarded = ({ provider, target }, verdict) => {
  if (provider === 'rocketchat') return rocketchat.forwarded(target, verdict);
  const { params, sends } = verdict;
  const url = address(sends);
  if (url === null) return 'what is sent is no address to Node';
  if (url !== `http://localhost${sends}`) return `what is sent is rewritten by the URL parser: ${url}`;
  const [query, older] = parsed(url);
  if (query === null) return 'what is sent is refused by the query parser';
  if (!same(query, older)) return 'what is sent reads otherwise to an older server';
  const segments = docusign(url);
  if (!segments) return 'what is sent is not the route';
  const values = { ...segments, ...query };
  if (!same(values, texts(params))) return `what is sent has other values: ${JSON.stringify(values)}`;
  return docusignAccepts(values) ? null : 'what is sent has values out of their bounds';
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

rocketchat.check().then(() => {
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
