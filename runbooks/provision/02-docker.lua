-- 02-docker.lua: step 2: the Docker engine, from Docker's own repository or from the release.
return function(p)
  return step {
    name = "docker", title = "Docker engine", class = "compensable", tags = { "docker" },
    resources = docker.resources { source = p.docker_source, repo_url = p.docker_repo_url },
  }
end
