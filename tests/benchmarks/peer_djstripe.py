"""dj-stripe as a project would have it, in one file: signatures verified, everything kept, on PostgreSQL.

It is run by the peer's own Python, where Django and dj-stripe are, and imports nothing of ours. The account, its key
and the endpoint are there beforehand, so that Stripe itself is never called; events are of a type whose object
dj-stripe does not fetch.
"""

import sys

ENDPOINT = "0b0f7a52-2f6c-4d3e-9a55-3c1c3a6f1f10"
PATH = f"/stripe/webhook/{ENDPOINT}/"
_API_KEY = "sk_test_000000000000000000000001"


def make(name: str, host: str, user: str, secret: str, first: bool = False):
    """The WSGI application; the `first` makes the tables and what must be there."""
    import django
    from django.conf import settings
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application
    from django.urls import include, path

    settings.configure(
        SECRET_KEY="a-secret-of-the-benchmark",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "djstripe"],
        MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": name,
                "HOST": host,
                "USER": user,
                "CONN_MAX_AGE": None,
            }
        },
        USE_TZ=True,
        # the tables as the models have them, at once: more than a hundred migrations take half a minute
        MIGRATION_MODULES={"djstripe": None, "auth": None, "contenttypes": None},
        STRIPE_TEST_SECRET_KEY=_API_KEY,
        STRIPE_LIVE_MODE=False,
        DJSTRIPE_FOREIGN_KEY_TO_FIELD="id",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()
    global urlpatterns  # noqa: PLW0603 - this module is the project's list of addresses
    urlpatterns = [path("stripe/", include("djstripe.urls", namespace="djstripe"))]
    if first:
        call_command("migrate", run_syncdb=True, verbosity=0)
        _seed(secret)
    return get_wsgi_application()


def _seed(secret: str) -> None:
    from djstripe.models import Account, APIKey, WebhookEndpoint

    account, _ = Account.objects.get_or_create(
        id="acct_benchmark", defaults={"livemode": False, "stripe_data": {"id": "acct_benchmark", "object": "account"}}
    )
    key, _ = APIKey.objects.get_or_create_by_api_key(_API_KEY)
    key.djstripe_owner_account = account
    key.save()
    WebhookEndpoint.objects.get_or_create(
        id="we_benchmark",
        defaults={
            "djstripe_uuid": ENDPOINT,
            "djstripe_owner_account": account,
            "livemode": False,
            "djstripe_validation_method": "verify_signature",
            "djstripe_tolerance": 300,
            "enabled_events": ["*"],
            "secret": secret,
            "status": "enabled",
            "url": "https://shop.example/stripe",
            "stripe_data": {"id": "we_benchmark", "object": "webhook_endpoint"},
        },
    )


if __name__ == "__main__":
    make(*sys.argv[1:], first=True)
