package router

import "github.com/redis/go-redis/v9"

// scripts run in Redis, each on one key, so that all work on a Cluster. They
// compare numbers and never strings: Lua compares strings by the locale that
// the server was started with.
type scripts struct {
	attach, detach, renew, release *redis.Script
}

func newScripts() scripts {
	return scripts{
		attach:  redis.NewScript(openBug().attach(attachScript)),
		detach:  redis.NewScript(detachScript),
		renew:   redis.NewScript(renewScript),
		release: redis.NewScript(releaseScript),
	}
}

// attachScript registers an entry unless the one there beats it. Answer:
// 1, 0 (it lost) or 2 (too late), the attach number, the value that was there if
// it was another's, and how many fields the bucket has.
//
// ARGV: field, epoch, attach number (0: make one), the least that a new one may
// be, whose entry it is, a value that loses whatever its order ("" for none),
// Redis's time after which it is too late. That is because a server that hung
// runs what was given up: a connection might then take the slot from one that
// came after it, or be registered after it has gone, and nobody would hear of it.
const attachScript = `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if now > tonumber(ARGV[7]) then return {2, now, '', 0} end
local epoch, no = tonumber(ARGV[2]), tonumber(ARGV[3])
local old = redis.call('HGET', KEYS[1], ARGV[1])
local oldEpoch, oldNo, oldWho = 0, 0, nil
if old and #old == 24 then
  oldEpoch, oldNo = struct.unpack('>I4I7', old)
  oldWho = string.sub(old, 12)
end
if no == 0 then no = math.max(now, tonumber(ARGV[4]), oldNo + 1) end
if oldWho == ARGV[5] then
  epoch, no, oldWho = math.max(epoch, oldEpoch), math.max(no, oldNo), nil
elseif oldWho and old ~= ARGV[6] and (epoch < oldEpoch or epoch == oldEpoch and no < oldNo) then
  return {0, no, old, 0}
end
local new = struct.pack('>I4I7', epoch, no) .. ARGV[5]
if new ~= old then redis.call('HSET', KEYS[1], ARGV[1], new) end
return {1, no, oldWho and old or '', redis.call('HLEN', KEYS[1])}
`

// detachScript removes an entry if it is still the same connection's.
// ARGV: field, whose entry it is.
const detachScript = `
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old and string.sub(old, 12) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
`

// renewScript extends this run's lease, compares before it does, and returns
// all leases. A lease is a field of one hash, not a key of its own: so one
// request renews it and tells who is alive, on a Cluster too. Its end is in
// Redis's time.
//
// Answer: 1 held before, 2 taken (there was none, or it had run out), 3 a newer
// run of this node holds it and nothing was done; Redis's time; then node and
// lease alternating, live ones only. Leases that ended an hour ago are removed.
//
// ARGV: node, incarnation, TTL in microseconds, buckets, address.
const renewScript = `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local own = redis.call('HGET', KEYS[1], ARGV[1])
local held = 2
if own then
  local run, ends = string.match(own, '^(%d+) (%d+) ')
  if run and tonumber(ends) > now then
    if run == ARGV[2] then
      held = 1
    elseif tonumber(run) > tonumber(ARGV[2]) then
      held = 3
    end
  end
end
if held ~= 3 then
  local ends = string.format('%.0f', now + ARGV[3])
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ends .. ' ' .. ARGV[4] .. ' ' .. ARGV[5])
end
local out = {held, now}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local ends = tonumber(string.match(all[i + 1], '^%d+ (%d+) ') or 0)
  if ends > now then
    out[#out + 1] = all[i]
    out[#out + 1] = all[i + 1]
  elseif ends < now - 3600000000 then
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return out
`

// releaseScript gives up a lease. ARGV: node, incarnation.
const releaseScript = `
local own = redis.call('HGET', KEYS[1], ARGV[1])
if own and string.match(own, '^(%d+) ') == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
`
