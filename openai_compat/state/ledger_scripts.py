"""Lua scripts of the ledger in Redis, each of which is one transaction.

`KEYS[1]` is the beginning of all keys. It has a hash tag, so that a cluster keeps them in one slot:

- `:m:<owner>` is a hash with the meters of an owner. A meter has the fields `<name>|w` for its window, `|c` and `|p`
  for the amounts of this window and the one before, and `|h` for what calls hold.
- `:holds:<holder>` is a hash of one process with the state of each call. `+` is a settled one, `-` one that must not be
  charged any more, and anything else lists what was charged.
- `:holders` is a sorted set of the processes by the time until which they are taken to be alive.
- `:numbers` is a hash with the version, the end of the turn and the number of dropped records.
- `:records` is a stream.

Lists of charges have a line for each and tabs between the values. Amounts stay texts, as Lua's numbers are exact to
9,007,199 dollars only. Above that, the comparison with a limit is off by less than a millionth of a dollar.
"""

from __future__ import annotations

from typing import Final

_METERS: Final = """
local base, call = KEYS[1], redis.call
local numbers = base .. ':numbers'

local function is_cold()
  return call('HEXISTS', numbers, 'version') == 0
end

local function book(owner)
  return base .. ':m:' .. owner
end

local function level(key, name, window)
  local state = call('HMGET', key, name .. '|w', name .. '|c', name .. '|p', name .. '|h')
  local present, held = tonumber(state[1] or '0'), state[4] or '0'
  if present >= window then return state[2] or '0', state[3] or '0', held end
  return '0', present == window - 1 and state[2] or '0', held
end

local function set(key, name, window, current, previous)
  call('HSET', key, name .. '|w', window, name .. '|c', current, name .. '|p', previous)
end

-- Return the field with the amount of `window`, or nil if it counts no more. The meter is brought to that window first.
local function field_of(key, name, window)
  local number = tonumber(window)
  local state = call('HGET', key, name .. '|w')
  local present = tonumber(state or '-2')
  if present < number then
    set(key, name, window, '0', present == number - 1 and call('HGET', key, name .. '|c') or '0')
    present = number
  end
  if present == number then return name .. '|c' end
  return present == number + 1 and name .. '|p' or nil
end

local function add(key, name, window, amount)
  if amount == '-0' then return end
  local field = field_of(key, name, window)
  if field and tonumber(call('HINCRBY', key, field, amount)) < 0 then call('HSET', key, field, '0') end
end

-- Keep a hash for at least `time` milliseconds, and for ever if `time` is empty.
local function keep(key, time, is_new)
  if time == '' then return call('PERSIST', key) end
  local left = call('PTTL', key)
  if is_new or (left >= 0 and left < tonumber(time)) then call('PEXPIRE', key, time) end
end

local function release(key, name, amount)
  if amount == '0' then return end
  if tonumber(call('HINCRBY', key, name .. '|h', '-' .. amount)) <= 0 then call('HDEL', key, name .. '|h') end
end

local function charged(list)
  return string.gmatch(list, '([^\\t]*)\\t([^\\t]*)\\t([^\\t]*)\\t([^\\t]*)\\t([^\\t]*)\\n')
end

local function is_open(state)
  return state and state ~= '+' and state ~= '-'
end

local function release_all(state)
  if not is_open(state) then return end
  for owner, name, _, amount, is_held in charged(state) do
    if is_held == '1' then release(book(owner), name, amount) end
  end
end
"""

RESERVE: Final = (
    _METERS
    + """
local id, holder, alive_until, list = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if is_cold() then return 'cold' end
local holds = base .. ':holds:' .. holder
if call('HEXISTS', holds, id) == 1 then return 'known' end
local charges, levels = {}, {}
local pattern = string.rep('([^\\t]*)\\t', 7) .. '([^\\t]*)\\n'
for owner, name, window, amount, is_held, limit, weight, time in string.gmatch(list, pattern) do
  local key = book(owner)
  local current, previous, held = level(key, name, tonumber(window))
  local used = tonumber(current) + tonumber(held) + math.floor(tonumber(previous) * tonumber(weight))
  if used + tonumber(amount) > tonumber(limit) then
    return 'refused ' .. #charges .. ' ' .. current .. ' ' .. previous .. ' ' .. held
  end
  charges[#charges + 1] = {key, name, window, amount, is_held, time, owner}
  levels[#levels + 1] = current .. ' ' .. previous .. ' ' .. held
end
local state = {}
for _, charge in ipairs(charges) do
  local key, name, window, amount, is_held, time, owner = unpack(charge)
  local is_new = call('EXISTS', key) == 0
  if is_held == '1' then
    call('HINCRBY', key, name .. '|h', amount)
  else
    add(key, name, window, amount)
  end
  keep(key, time, is_new)
  state[#state + 1] = table.concat({owner, name, window, amount, is_held}, '\\t') .. '\\n'
end
call('HSET', holds, id, table.concat(state))
call('ZADD', base .. ':holders', 'NX', alive_until, holder)
return table.concat(levels, ' ')
"""
)

SETTLE: Final = (
    _METERS
    + """
local id, holder, list, record, acknowledged = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local holds = base .. ':holds:' .. holder
if is_cold() then return 'cold' end
for done in string.gmatch(acknowledged, '[^\\t]+') do call('HDEL', holds, done) end
local state = call('HGET', holds, id)
if state == '+' then return 'known' end
release_all(state)
for owner, name, window, amount, time in charged(list) do
  local key = book(owner)
  local is_new = call('EXISTS', key) == 0
  add(key, name, window, amount)
  keep(key, time, is_new)
end
call('HSET', holds, id, '+')
if record ~= '' then call('XADD', base .. ':records', '*', 'body', record) end
return 'ok'
"""
)

UNDO: Final = (
    _METERS
    + """
local holds = base .. ':holds:' .. ARGV[1]
for id in string.gmatch(ARGV[2], '[^\\t]+') do
  local state = call('HGET', holds, id)
  release_all(state)
  if is_open(state) then
    for owner, name, window, amount, is_held in charged(state) do
      if is_held == '0' then add(book(owner), name, window, '-' .. amount) end
    end
  end
  if state ~= '+' then call('HSET', holds, id, '-') end
end
"""
)

LEVELS: Final = (
    _METERS
    + """
local levels = {}
for owner, name, window in string.gmatch(ARGV[1], '([^\\t]*)\\t([^\\t]*)\\t([^\\t]*)\\n') do
  levels[#levels + 1] = table.concat({level(book(owner), name, tonumber(window))}, ' ')
end
return table.concat(levels, ' ')
"""
)

RESTORE: Final = (
    _METERS
    + """
if not is_cold() then return end
local pattern = string.rep('([^\\t]*)\\t', 5) .. '([^\\t]*)\\n'
for owner, name, window, current, previous, time in string.gmatch(ARGV[1], pattern) do
  local key = book(owner)
  local is_new = call('EXISTS', key) == 0
  set(key, name, window, current, previous)
  keep(key, time, is_new)
end
"""
)

KEEP_ALIVE: Final = (
    _METERS
    + """
local now, holder, alive_until, marks_time = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
call('ZADD', base .. ':holders', alive_until, holder)
call('PERSIST', base .. ':holds:' .. holder)
for _, dead in ipairs(call('ZRANGEBYSCORE', base .. ':holders', '-inf', now)) do
  local holds = base .. ':holds:' .. dead
  local states = call('HGETALL', holds)
  for position = 1, #states, 2 do
    local id, state = states[position], states[position + 1]
    if is_open(state) then
      release_all(state)
      call('HDEL', holds, id)
    end
  end
  call('PEXPIRE', holds, marks_time)
  call('ZREM', base .. ':holders', dead)
end
"""
)

BEGIN_TURN: Final = """
local numbers = KEYS[1] .. ':numbers'
if tonumber(redis.call('HGET', numbers, 'turn') or '0') > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', numbers, 'turn', ARGV[2])
return 1
"""

BUMP_VERSION: Final = """
local numbers = KEYS[1] .. ':numbers'
if redis.call('HEXISTS', numbers, 'version') == 1 then redis.call('HINCRBY', numbers, 'version', 1) end
"""
