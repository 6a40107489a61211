# projects.py: what GlitchTip's own `manage.py shell` is given: an admin, the tenant's organization,
# a project for each program with the key that was chosen for it, and a test event for each
# project that has none yet. It prints what GlitchTip chose, and nothing that is secret.
import base64
import json
import time
import urllib.request
import uuid

from allauth.account.models import EmailAddress
from apps.organizations_ext.models import Organization
from apps.projects.models import Project, ProjectKey
from apps.teams.models import Team
from apps.users.models import User

order = json.loads(base64.b64decode("{{ order }}"))
user = User.objects.filter(email=order["email"]).first()
if user is None:
    user = User.objects.create_superuser(email=order["email"], password=order["password"])
EmailAddress.objects.get_or_create(user=user, email=order["email"], defaults=dict(primary=True, verified=True))
organization, _ = Organization.objects.get_or_create(slug=order["tenant"], defaults=dict(name=order["tenant"]))
if not organization.users.filter(pk=user.pk).exists():
    organization.add_user(user)
team, _ = Team.objects.get_or_create(slug="server", organization=organization)
team.members.add(organization.organization_users.get(user=user))

projects = []
for one in order["programs"]:
    project, _ = Project.objects.get_or_create(name=one["name"], organization=organization)
    team.projects.add(project)
    ProjectKey.objects.get_or_create(public_key=uuid.UUID(one["key"]), defaults=dict(project=project, name="lbrun"))
    projects.append((one, project))


def send(one, project):
    event = dict(event_id=uuid.uuid4().hex, level="info", platform="other", message="test event of lbrun")
    auth = "Sentry sentry_version=7, sentry_client=lbrun/1, sentry_key=" + one["key"]
    request = urllib.request.Request("http://localhost:8000/api/" + str(project.pk) + "/store/", json.dumps(event).encode(),
                                     headers=dict([("Content-Type", "application/json"), ("X-Sentry-Auth", auth)]))
    try:
        urllib.request.urlopen(request, timeout=20).close()
    except OSError as err:
        print("no test event of", one["name"] + ":", err)


waiting = [pair for pair in projects if not pair[1].issues.exists()]
for pair in waiting:
    send(*pair)
end = time.monotonic() + 30
while waiting and time.monotonic() < end:
    time.sleep(1)
    waiting = [pair for pair in waiting if not pair[1].issues.exists()]
print("lbrun:" + json.dumps(dict(ids=dict((one["id"], project.pk) for one, project in projects),
                                 silent=[one["name"] for one, _ in waiting])))
