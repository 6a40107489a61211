-- server.lua: the parameters of a server that is made a tenant's: whose it is, what it carries and
-- how it is reached. Those of the tools themselves are in params.lua.
return {
  tenant = param.string { pattern = "^[a-z][a-z0-9-]*$", max = 40, description = "the customer's short name" },
  domain = param.string { pattern = "^[a-z0-9][a-z0-9.-]*%.[a-z][a-z0-9-]+$", description = "the customer's domain" },
  tier = param.enum { "lite", "build", "scale", "enterprise", default = "lite", description = "the size that was bought" },
  region = param.enum { "eu", "na", default = "eu", description = "where the server stands" },
  tools = param.list { of = param.enum(catalog.names()), default = {}, description = "the chosen tools" },
  admin_user = param.string { pattern = "^[a-z_][a-z0-9_-]*$", max = 32, default = "letsbe-admin",
    description = "the only account that may log in afterwards" },
  admin_ssh_public_key = param.ssh_public_key { description = "its public key; the private half must be at hand here" },
  ssh_port = param.integer { min = 1, max = 65535, default = 22022, description = "where sshd listens afterwards" },
  docker_source = param.enum { "docker-ce", "distro", default = "docker-ce", description = "Docker's repository or the release's" },
  docker_repo_url = param.string { optional = true, pattern = "^https?://[^%s']+$",
    description = "a mirror of download.docker.com/linux/DISTRIBUTION" },
}
