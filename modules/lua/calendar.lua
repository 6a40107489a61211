-- calendar.lua: days and times of UTC as text and as numbers, by the proleptic Gregorian calendar
-- (RFC 3339's form). It asks no clock.

local calendar = {}

-- calendar.days("YYYY-MM-DD") -> days since 1970-01-01, nil for a name that is no date
function calendar.days(name)
  local y, m, d = name:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)$")
  if not y then return nil end
  y, m, d = math.tointeger(tonumber(y)), math.tointeger(tonumber(m)), math.tointeger(tonumber(d))
  if m < 1 or m > 12 or d < 1 or d > 31 then return nil end
  local shifted = m <= 2 and y - 1 or y
  local era = shifted // 400
  local of_era = shifted - era * 400
  local of_year = (153 * (m + (m > 2 and -3 or 9)) + 2) // 5 + d - 1
  return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
end

-- calendar.date(days) -> "YYYY-MM-DD", of days since 1970-01-01
function calendar.date(days)
  local z = days + 719468
  local era = z // 146097
  local of_era = z - era * 146097
  local year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
  local of_year = of_era - (365 * year + year // 4 - year // 100)
  local month = (5 * of_year + 2) // 153
  local m = month + (month < 10 and 3 or -9)
  return ("%04d-%02d-%02d"):format(year + era * 400 + (m <= 2 and 1 or 0), m, of_year - (153 * month + 2) // 5 + 1)
end

-- calendar.utc(seconds) -> "YYYY-MM-DDThh:mm:ssZ"
function calendar.utc(seconds)
  local rest = seconds % 86400
  return ("%sT%02d:%02d:%02dZ"):format(calendar.date(seconds // 86400), rest // 3600, rest // 60 % 60, rest % 60)
end

-- calendar.is_day(name): a date that the calendar has, written as one
function calendar.is_day(name)
  local n = calendar.days(name)
  return n ~= nil and calendar.date(n) == name
end

-- calendar.is_sunday(name)
function calendar.is_sunday(name)
  return calendar.is_day(name) and (calendar.days(name) + 4) % 7 == 0
end

-- calendar.epoch("2031-02-03T04:05:06Z") -> seconds since 1970, or nil for what is no time;
-- the seconds may be left out
function calendar.epoch(text)
  local day, h, m, s = text:match("^(%d%d%d%d%-%d%d%-%d%d)T(%d%d):(%d%d):(%d%d)Z$")
  if not day then day, h, m = text:match("^(%d%d%d%d%-%d%d%-%d%d)T(%d%d):(%d%d)Z$") end
  if not day or not calendar.is_day(day) then return nil end
  h, m, s = math.tointeger(tonumber(h)), math.tointeger(tonumber(m)), math.tointeger(tonumber(s or "0"))
  if h > 23 or m > 59 or s > 59 then return nil end
  return calendar.days(day) * 86400 + h * 3600 + m * 60 + s
end

return calendar
