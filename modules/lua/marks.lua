-- marks.lua: what was done inside a container leaves the hash of its input beside the container's
-- own state, in the same volume: what is lost or put back with that volume is done again. It
-- does nothing inside a container.

local marks = {}

-- marks.find(volume) -> shell text: $home is the folder of the volume; it ends where there is none
function marks.find(volume)
  return ([[home=$(docker volume inspect -f '{{.Mountpoint}}' %s 2>/dev/null) || { echo none; exit 0; }
]]):format(volume)
end

-- marks.same(ctx, volume, name, want) -> whether it was done with this input; `want` is a hash
-- or a shell text that gives one
function marks.same(ctx, volume, name, want)
  local out = ctx.target:run(("%s[ \"$(cat \"$home\"/.lbrun/%s 2>/dev/null)\" = \"%s\" ] && echo same; true"):format(
    marks.find(volume), name, want)).stdout
  return out == "same\n"
end

-- marks.set(ctx, volume, name, want): it was
function marks.set(ctx, volume, name, want)
  ctx.target:run(([[%sumask 077; mkdir -p "$home/.lbrun" && cd "$home/.lbrun" && echo "%s" >%s.new && mv -f %s.new %s]]):format(
    marks.find(volume), want, name, name, name))
end

return marks
