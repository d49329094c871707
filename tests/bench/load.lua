-- wrk's part of a measurement: requests for TARGET by 1,000 callers in rotation, or each by one of its own (FRESH), and the
-- figures as JSON.
local target, token, run = os.getenv("TARGET"), os.getenv("TOKEN"), os.getenv("RUN")
local fresh = os.getenv("FRESH") ~= ""
local callers = 1000
local requests, at = {}, 0

local function made(n)
  return wrk.format("GET", (target:gsub("{n}", tostring(n % 97))), {
    ["X-Auth-Token"] = string.format("%s%s%034d", token, run, n),
    ["X-User-Id"] = string.format("u%016d", n),
    ["Accept"] = "application/json",
    ["User-Agent"] = "bench/1",
  })
end

function init(args)
  for n = 1, callers do
    requests[n] = made(n)
  end
end

function request()
  at = at + 1
  if fresh then
    return made(at)
  end
  return requests[at % callers + 1]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\nJSON {"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"refused":%d,"failed":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
