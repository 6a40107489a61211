#!/usr/bin/python3
# manage.py: stands in for GlitchTip's, as far as `manage.py shell` runs what lbrun says to it:
# the few calls of its models that this needs, on tables of the stand-in's own. Nothing that
# GlitchTip is for is in it.
import os
import subprocess
import sys
import types
import uuid
from urllib.parse import unquote, urlsplit


url = urlsplit(os.environ["DATABASE_URL"])


def sql(text, *values):
    words = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", url.hostname, "-p", str(url.port), "-U", url.username,
             "-d", url.path.strip("/")]
    for i, value in enumerate(values):
        words += ["-v", f"v{i}={value}"]
    done = subprocess.run(words, input=text, text=True, check=True, stdout=subprocess.PIPE,
                          env={**os.environ, "PGPASSWORD": unquote(url.password), "PGOPTIONS": "-c client_min_messages=warning"})
    return done.stdout.splitlines()


class Rows:
    """The rows of a table of which one column tells one from another."""

    def __init__(self, model):
        self.model = model

    def filter(self, **by):
        keys = [by[self.model.column]]
        return Found([self.model(*row.split("|", 1)) for row in sql(
            f"SELECT id, {self.model.column} FROM {self.model.table} WHERE {self.model.column} = :'v0';", *keys)])

    def get_or_create(self, defaults=None, **by):
        found = self.filter(**by).first()
        if found:
            return found, False
        more = {**(defaults or {}), **by}
        self.model.add(**more)
        return self.filter(**by).first(), True

    def create_superuser(self, email, password):
        assert len(password) >= 8
        return self.get_or_create(email=email)[0]


class Found(list):
    def first(self):
        return self[0] if self else None

    def exists(self):
        return bool(self)


class Any:
    """What is asked and told of memberships: everybody is in."""

    def filter(self, **by):
        return Found([1])

    def get(self, **by):
        return None

    def add(self, *who):
        pass


class Model:
    def __init__(self, pk, value):
        self.pk, self.value = int(pk), value
        self.members = self.users = self.organization_users = self.projects = Any()

    def __init_subclass__(cls):
        cls.objects = Rows(cls)
        setattr(cls, cls.column, property(lambda self: self.value))

    @classmethod
    def add(cls, **values):
        sql(f"INSERT INTO {cls.table} ({cls.column}) VALUES (:'v0');", values[cls.column])

    def add_user(self, user):
        pass


class User(Model):
    table, column = "users", "email"


class EmailAddress(Model):
    table, column = "addresses", "email"


class Organization(Model):
    table, column = "organizations", "slug"


class Team(Model):
    table, column = "teams", "slug"


class Project(Model):
    table, column = "projects", "name"

    @property
    def issues(self):
        return Found(sql("SELECT 1 FROM events WHERE project = :'v0';", self.pk))


class ProjectKey(Model):
    table, column = "keys", "public_key"

    @classmethod
    def add(cls, public_key, project, name):
        assert isinstance(public_key, uuid.UUID)
        sql("INSERT INTO keys (public_key, project) VALUES (:'v0', :'v1');", public_key, project.pk)


sql("".join(f"CREATE TABLE IF NOT EXISTS {one.table} (id serial PRIMARY KEY, {one.column} text UNIQUE NOT NULL);"
            for one in (User, EmailAddress, Organization, Team, Project))
    + "CREATE TABLE IF NOT EXISTS keys (id serial PRIMARY KEY, public_key uuid UNIQUE NOT NULL, project int NOT NULL);"
    + "CREATE TABLE IF NOT EXISTS events (project int NOT NULL, message text NOT NULL);")
for path, names in {"allauth.account.models": [EmailAddress], "apps.organizations_ext.models": [Organization],
                    "apps.projects.models": [Project, ProjectKey], "apps.teams.models": [Team],
                    "apps.users.models": [User]}.items():
    for i in range(path.count(".") + 1):
        name = ".".join(path.split(".")[:i + 1])
        sys.modules.setdefault(name, types.ModuleType(name))
    for one in names:
        setattr(sys.modules[path], one.__name__, one)
if sys.argv[1:] != ["shell"]:
    sys.exit("manage.py (stand-in): shell")
exec(sys.stdin.read(), {"__name__": "__console__"})
