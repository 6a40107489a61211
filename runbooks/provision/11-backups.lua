-- 11-backups.lua: sections 4.1 and 9.3: the server backs itself up at night and tests a backup each
-- month, by an lbrun of its own. A server without tools has nothing to back up.
return function(p)
  if #p.tools == 0 then return {} end
  return onserver.steps(p)
end
