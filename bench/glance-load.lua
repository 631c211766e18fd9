-- SPDX-License-Identifier: BSD-3-Clause
-- What wrk asks of an image service: LOAD is a path, in which {id} is one of
-- the ids in the file IDS, or "create".

local load, ids = os.getenv("LOAD"), {}
local body = os.getenv("BODY")
local json = { ["Content-Type"] = "application/json" }

if load:find("{id}", 1, true) then
	for line in io.lines(os.getenv("IDS")) do
		ids[#ids + 1] = line
	end
end

function request()
	if load == "create" then
		return wrk.format("POST", "/v2/images", json, body)
	end
	local path = load:gsub("{id}", function()
		return ids[math.random(#ids)]
	end)
	return wrk.format("GET", path)
end

function done(summary, latency, requests)
	local e = summary.errors
	io.write(string.format(
		'{"requests": %d, "us": %d, "bad": %d, "p50": %d, "p99": %d}\n',
		summary.requests, summary.duration,
		e.connect + e.read + e.write + e.status + e.timeout,
		latency:percentile(50), latency:percentile(99)))
end
