// Holds a table of query strings against Rocket.Chat's own validators: rolegate may refuse more than the server, each time
// for a reason that the table names, and never forwards what the server refuses.
//
// The gate is a running one, before a server that tells what reached it; its policy permits all, so that only the reading
// of a query can refuse it.
'use strict';
const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { execFileSync } = require('node:child_process');
const { after, before, it } = require('node:test');
const { gate, serve } = require('../clients/node/program.cjs');
const { of } = require('../differential/rocketchat.cjs');

const FILE = path.join(__dirname, 'table.json');
const AT_ONCE = 8;
const ENOUGH = 500;

const rocketchat = of(process.env.ROLEGATE_VALIDATORS);
const table = JSON.parse(fs.readFileSync(FILE, 'utf8'));
// As it goes over the wire: one character for each byte.
const target = ({ action, query }) => `${rocketchat.routes[action][0]}?${Buffer.from(query, 'utf8').toString('latin1')}`;

const running = [];
// What rolegate made of each row, in the table's order: what it sent and judged, or its reason.
let verdicts;

// A Rocket.Chat server as far as lookups go; it answers a guarded request with the target that reached it.
const upstream = () =>
  serve('127.0.0.1', (request, _, response) => {
    const content = {
      '/api/v1/me': { _id: 'somebodyXPnMktTFb', username: 'somebody', roles: ['user'], success: true },
      '/api/v1/permissions.listAll': { update: [], remove: [], success: true },
      '/api/v1/roles.list': { roles: [], success: true },
      '/api/v1/subscriptions.getOne': { subscription: null, success: true },
      '/api/v1/rooms.info': { room: { t: 'c' }, success: true },
    }[request.url.split('?')[0]] ?? { received: request.url, id: request.headers['x-request-id'] };
    response.setHeader('content-type', 'application/json').end(JSON.stringify(content));
  });

const ask = (port, agent, row) =>
  new Promise((resolve, reject) => {
    const headers = { 'x-user-id': 'somebodyXPnMktTFb', 'x-auth-token': 'some-token' };
    const request = http.get({ host: '127.0.0.1', port, agent, path: target(row), headers }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk)).on('end', () => {
        const content = JSON.parse(Buffer.concat(chunks).toString());
        resolve(response.statusCode === 200 ? content : { id: response.headers['x-request-id'], status: response.statusCode });
      });
    });
    request.on('error', reject);
  });

const sorted = (object) => Object.fromEntries(Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1)));

before(async () => {
  await rocketchat.check();
  const server = await upstream();
  running.unshift(server);
  const configuration = `
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[audit]
refusals_per_address = 100000
[policies]
directory = "policies"
[[upstream]]
provider = "rocketchat"
url = "http://127.0.0.1:${server.port}"
`;
  const permitAll = '@id("all")\npermit (principal, action, resource);\n';
  const started = await gate(configuration, { 'rocketchat/policy.cedar': permitAll, 'rocketchat/cases.toml': '' });
  running.unshift(started);

  const agent = new http.Agent({ keepAlive: true, maxSockets: AT_ONCE });
  const answers = new Array(table.rows.length);
  const rows = table.rows.entries();
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (const [index, row] of rows) answers[index] = await ask(started.port, agent, row);
  }));
  agent.destroy();

  const lines = fs.readFileSync(started.audit, 'utf8').split('\n').slice(0, -1).map((line) => JSON.parse(line));
  const records = new Map(lines.filter(({ kind }) => kind === 'decision').map((record) => [record.id, record]));
  verdicts = answers.map(({ id, received, status }, index) => {
    const record = records.get(id);
    assert(record, `no record of ${target(table.rows[index])}: ${JSON.stringify(answers[index])}`);
    assert.equal(record.decision, received === undefined ? 'deny' : 'permit');
    return { action: record.action?.name, sends: received, params: record.context.params, refuses: record.reason ?? undefined, status };
  });
});
after(async () => {
  for (const one of running) await one.stop();
});

const server = (row) => (rocketchat.asked(row.action, target(row)) === null ? 'refuses' : 'accepts');
const rolegate = ({ sends, refuses }) => (sends === undefined ? { refuses } : { sends: sends.slice(sends.indexOf('?') + 1) });
const told = (list) => list.map((row) => JSON.stringify(row)).join('\n');

// One line a shape, a reason and a row, so that a change of the table can be read.
const written = ({ about, shapes, reasons, rows }) => {
  const lines = (list) => list.map((entry) => `\n    ${entry}`).join(',');
  const json = (list) => lines(list.map((entry) => JSON.stringify(entry)));
  const named = Object.entries(reasons).map(([name, reason]) => `${JSON.stringify(name)}: ${JSON.stringify(reason)}`);
  return `{
  "about": ${JSON.stringify(about)},
  "shapes": [${json(shapes)}
  ],
  "reasons": {${lines(named)}
  },
  "rows": [${json(rows)}
  ]
}
`;
};

it('the verdicts in the table are those of the validators and of rolegate', () => {
  const made = table.rows.map(({ action, parameter, shape, query, because }, index) => ({
    action, parameter, shape, query, server: server({ action, query }), ...rolegate(verdicts[index]), because,
  }));
  if (process.env.ROLEGATE_TABLE === 'renew') {
    table.rows = made;
    fs.writeFileSync(FILE, written(table));
  }
  assert.deepEqual(table.rows.map((row) => JSON.stringify(row)), made.map((row) => JSON.stringify(row)));
});

it('rolegate forwards nothing that the server refuses', () => {
  assert.equal(told(table.rows.filter((row, index) => verdicts[index].sends !== undefined && server(row) === 'refuses')), '');
});

it('what rolegate forwards reads in the server as the values that were judged', () => {
  let forwarded = 0;
  for (const [index, row] of table.rows.entries()) {
    if (verdicts[index].sends === undefined) continue;
    assert.equal(rocketchat.forwarded(target(row), verdicts[index]), null, JSON.stringify(row));
    assert.equal(verdicts[index].action, row.action);
    forwarded += 1;
  }
  assert(forwarded >= 100, `only ${forwarded} rows are forwarded`);
});

it('rolegate refuses a bad query with 400 and the reason that its record holds', () => {
  const { reasons } = table;
  for (const [index, row] of table.rows.entries()) {
    const { refuses, status } = verdicts[index];
    if (refuses === undefined) continue;
    assert.equal(status, 400, JSON.stringify(row));
    if (row.because !== undefined) assert(reasons[row.because]?.as.includes(refuses), `${JSON.stringify(row)} is refused as ${refuses}`);
  }
});

it('where rolegate refuses more than the server, the table names one of its reasons', () => {
  const more = table.rows.filter((row, index) => verdicts[index].refuses !== undefined && server(row) === 'accepts');
  assert.equal(told(more.filter(({ because }) => !Object.hasOwn(table.reasons, because))), '', 'without a reason');
  assert.equal(told(table.rows.filter((row) => row.because !== undefined && !more.includes(row))), '', 'a reason for nothing');
  const used = new Set(more.map(({ because }) => because));
  assert.deepEqual(Object.keys(table.reasons).filter((name) => !used.has(name)), [], 'never used');
});

it('every parameter of the catalogue stands in the table in every shape', () => {
  const { providers } = JSON.parse(execFileSync(process.env.ROLEGATE_BIN, ['actions', '--format', 'json'], { maxBuffer: 1 << 24 }));
  const { actions } = providers.find(({ provider }) => provider === 'rocketchat');
  const known = new Set(table.rows.map(({ action, parameter, shape }) => `${action} ${parameter} ${shape}`));
  const wanted = Object.keys(rocketchat.routes).flatMap((id) =>
    actions.find((action) => action.id === id).parameters.flatMap(({ name }) => table.shapes.map((shape) => `${id} ${name} ${shape}`)));
  assert.deepEqual(wanted.filter((row) => !known.has(row)), []);
});

it(`the table holds more than ${ENOUGH} queries, and none twice`, () => {
  const rows = table.rows.map((row) => target(row));
  assert.deepEqual(rows.filter((row, index) => rows.indexOf(row) !== index), []);
  assert(rows.length > ENOUGH, `${rows.length} queries`);
});
