-- params.lua: the parameters of steps 9 to 11, for each runbook that takes these steps. Which
-- tools and which tenant is not among them.
return {
  acme = param.enum { "http-01", "dns-01", "self-signed", default = "http-01", description = "how certificates are got" },
  acme_directory = param.string { default = "https://acme-v02.api.letsencrypt.org/directory",
    description = "the certificate authority" },
  acme_email = param.string { optional = true, description = "its contact address (ssl@DOMAIN)" },
  acme_ca = param.string { optional = true, pattern = "^/[%w/._-]+$",
    description = "file on the server: the roots that vouch for its own TLS, where the system's do not" },
  acme_addresses = param.list { of = param.string { pattern = "^[%x.:]+$" }, default = {},
    description = "further public addresses of the server, such as of a network that translates them" },
  alert_url = param.string { optional = true, pattern = "^https?://", description = "the webhook that Uptime Kuma sends its alerts to" },
  hub_url = param.string { optional = true, pattern = "^https?://", description = "the Hub, to report to" },
  job_id = param.string { optional = true, description = "the Hub's job" },
  report_job = param.boolean { default = true, description = "tell the Hub how the job stands; no where another run does" },
  runner_token = param.secret { optional = true, description = "the Hub's token for this job" },
  config_json = param.string { default = "/opt/letsbe/config.json", pattern = "^/.",
    description = "initial passwords on the server, imported and wiped" },
  models = param.list { of = param.string { pattern = "^[%w._/:-]+$" }, min = 2,
    default = { "openrouter/anthropic/claude-sonnet-4.5", "openrouter/openai/gpt-5", "openrouter/mistralai/mistral-large" },
    description = "the agents' model and those that take over when it does not answer" },
  recipients = param.list { of = param.string { pattern = "^age1[a-z0-9]+$" }, default = {},
    description = "age recipients that the credentials are sealed to; their keys are not on the server" },
}
