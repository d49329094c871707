// The stories that every official client lives through, told by the two Node clients; the Python clients tell the same.
//
// ROLEGATE_SNAPSHOTS=renew writes the files of `snapshots/` anew.
'use strict';
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { after, before, describe, it } = require('node:test');
const { createRequire } = require('node:module');
const { setTimeout } = require('node:timers/promises');
const programs = require('./program.cjs');

// The client names this global before it has it: Node has it since 20, and before that here.
globalThis.File ??= require('node:buffer').File;

const load = createRequire(path.resolve(process.env.ROLEGATE_CLIENTS, 'package.json'));
const { RestClient } = load('@rocket.chat/api-client');
const { ApiClient, RoomsApi } = load('docusign-rooms');

const here = path.join(__dirname, '..');
const { stories } = JSON.parse(fs.readFileSync(path.join(here, 'stories.json'), 'utf8'));
// Of the headers, those that rolegate chooses and that do not change from run to run.
const TOLD = ['content-type', 'content-length', 'cache-control', 'pragma', 'retry-after', 'www-authenticate', 'x-request-id'];
const told = (headers) => Object.fromEntries(TOLD.filter((name) => headers[name] != null).map((name) => [name, headers[name]]));
const rendered = (seen) => `${JSON.stringify(seen, null, 2)}\n`;
const WRITTEN_WITHIN = 5_000;
const renew = process.env.ROLEGATE_SNAPSHOTS === 'renew';

const decisions = (file) =>
  fs.readFileSync(file, 'utf8').split('\n').slice(0, -1).map((line) => JSON.parse(line)).filter((record) => record.kind === 'decision');

// The decision records beyond the first so many, when there is one.
const decisionsAfter = async (file, count) => {
  const deadline = Date.now() + WRITTEN_WITHIN;
  while (decisions(file).length <= count && Date.now() < deadline) await setTimeout(10);
  return decisions(file).slice(count);
};

// The gates by a story's `server`, and their providers, which the gate tells by the name of its host: a relay in front of
// each, and the gate's audit file.
const HOSTS = { rocketchat: '127.0.0.1', docusign: 'localhost' };
const template = (file) => fs.readFileSync(path.join(here, 'gates', file), 'utf8');
const gates = {};
const running = [];
before(async () => {
  const start = async (starting) => {
    const started = await starting;
    running.unshift(started);
    return started;
  };
  const sample = await start(programs.demo());
  const server = await start(programs.failingServer());
  const failing = await start(programs.gate(template('failing.toml').replaceAll('{upstream}', `http://127.0.0.1:${server.port}`)));
  const own = { 'rocketchat/profiles.cedar': template('profiles.cedar'), 'rocketchat/cases.toml': template('cases.toml') };
  const strict = await start(programs.gate(template('strict.toml').replaceAll('{upstream}', sample.rocketchat.sample), own));
  const ports = { sample: new URL(sample.rocketchat.gate).port, failing: failing.port, strict: strict.port };
  const audits = { sample, failing, strict };
  for (const [server, port] of Object.entries(ports)) {
    gates[server] = {};
    for (const [provider, host] of Object.entries(HOSTS)) {
      gates[server][provider] = { ...(await start(programs.relay(host, port))), audit: audits[server].audit };
    }
  }
});
after(async () => {
  for (const started of running) await started.stop();
});

// The last answer of the gate to the story's one call, and what is to be kept of that and of what the client made of it.
const liveThrough = async (story, { answers, audit }, call) => {
  const [asked, recorded] = [answers.length, decisions(audit).length];
  const client = await call();
  const sent = answers.slice(asked);
  const records = await decisionsAfter(audit, recorded);
  assert.equal(sent.length, 1, 'one call is one request');
  const [record] = records;
  assert.deepEqual(
    records.map(({ action, decision, reason }) => ({ action: action.name, decision, reason })),
    [{ action: story.action, decision: story.sees === 'permit' ? 'permit' : 'deny', reason: story.sees === 'permit' ? null : story.sees }],
  );
  assert.equal(sent[0].headers['x-request-id'], record.id);
  const seen = { gate: { status: sent[0].status, headers: told(sent[0].headers), body: sent[0].body }, client };
  return { sent: sent[0], seen: JSON.parse(JSON.stringify(seen).replaceAll(record.id, '<decision id>')) };
};

// Compares with the client's file, story by story and at last as a whole, so that nothing stands in it that no story sees.
const liveThem = (client, list, live) =>
  describe(client, () => {
    const file = path.join(here, 'snapshots', `${client}.json`);
    const seen = {};
    for (const story of list) {
      it(story.story, async () => {
        seen[story.story] = await live(story);
        if (!renew) assert.equal(rendered(seen[story.story]), rendered(JSON.parse(fs.readFileSync(file, 'utf8'))[story.story] ?? null));
      });
    }
    it('its file holds these stories and no other', () => {
      assert.deepEqual(Object.keys(seen), list.map(({ story }) => story), 'the whole list must run to compare the file, and to renew it');
      if (renew) fs.writeFileSync(file, rendered(seen));
      assert.equal(fs.readFileSync(file, 'utf8'), rendered(seen));
    });
  });

const name = (value) => value?.constructor?.name ?? String(value);

const rocketchat = stories.filter(({ action }) => action !== 'rooms.users');
liveThem('rocket.chat-api-client.node', rocketchat, async (story) => {
  const gate = gates[story.server ?? 'sample'].rocketchat;
  const client = new RestClient({ baseUrl: gate.url });
  const login = await client.post('/v1/login', { user: story.as, password: `${story.as}-password` });
  client.setCredentials({ 'X-User-Id': login.data.userId, 'X-Auth-Token': login.data.authToken });
  if (story.login === 'lost') await client.post('/v1/logout', {});
  const { sent, seen } = await liveThrough(story, gate, async () => {
    try {
      return { returns: await client.get(`/v1/${story.action.replace('audit.', 'audit/')}`, story.with) };
    } catch (error) {
      if (!(error instanceof Response)) throw error;
      const { status, statusText, headers } = error;
      return { throws: name(error), status, statusText, headers: told(Object.fromEntries(headers)), text: await error.text() };
    }
  });
  if (story.sees === 'permit') {
    assert.deepEqual(seen.client.returns, JSON.parse(sent.body));
  } else {
    const { status, headers, body } = seen.gate;
    assert.deepEqual([seen.client.status, seen.client.headers, seen.client.text], [status, headers, body]);
  }
  return seen;
});

const docusign = stories.filter(({ action }) => action === 'rooms.users');
liveThem('docusign-rooms.node', docusign, async (story) => {
  const gate = gates[story.server ?? 'sample'].docusign;
  const api = new ApiClient();
  api.setBasePath(`${gate.url}/restapi`);
  api.addDefaultHeader('Authorization', `Bearer ${story.login === 'lost' ? 'no-longer-a-token' : `${story.as}-ds-token`}`);
  const { accountId, roomId, ...options } = story.with;
  const { sent, seen } = await liveThrough(story, gate, async () => {
    try {
      const page = await new RoomsApi(api).getRoomUsers(accountId, roomId, options);
      return { returns: page, class: name(page) };
    } catch (error) {
      if (error instanceof Error) throw error;
      const { statusCode, header, body, ...more } = error;
      return { throws: name(error), statusCode, header: told(header), body, ...more };
    }
  });
  const content = JSON.parse(sent.body);
  if (story.sees === 'permit') {
    // The client's model makes a text of a null.
    assert.deepEqual(seen.client.returns, { ...content, nextUri: String(content.nextUri), priorUri: String(content.priorUri) });
  } else {
    assert.equal(JSON.stringify(seen.client.body), seen.gate.body);
    assert.deepEqual([seen.client.statusCode, seen.client.header], [seen.gate.status, seen.gate.headers]);
  }
  return seen;
});
