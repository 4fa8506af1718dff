"""What an API key stands for: a Kubernetes token of its ServiceAccount, so that RBAC stays the one truth."""

from pydantic import SecretStr

from finetune_operator.core.api_keys import ApiKey, is_secret
from finetune_operator.kube.errors import KubeError, NotFound
from finetune_operator.logs import get_logger
from finetune_operator.store import api_keys
from finetune_operator.store.api_keys import Account, KeyRecord
from finetune_operator.web.problems import Problem
from finetune_operator.web.refusals import refused
from finetune_operator.web.services import Services

FORBIDDEN = 403
VALUE = "the chart's value api.keys.serviceAccounts (FINETUNE_API_KEY_ACCOUNTS)"

logger = get_logger(__name__)


async def login(services: Services, shown: ApiKey, not_this: SecretStr | None = None) -> SecretStr:
    """The token to act with, never one that the API server has refused. Raises 401 for a key that is unknown or has
    ended.
    """
    now = services.now()
    key = await api_keys.find(services.engine, shown.id)
    if key is None or not is_secret(shown.secret, key.digest):
        raise _refused(shown.id, "this API key is unknown: make one by POST /v1/api-keys")
    if not key.is_active(now):
        services.account_tokens.drop(key.id)
        ended = "was revoked" if key.revoked_at else f"expired on {key.expires_at:%Y-%m-%d}"
        raise _refused(key.id, f"the API key {key.id} ({key.name}) {ended}: make another one by POST /v1/api-keys")
    token = await token_for(services, key, not_this)
    if await api_keys.note_use(services.engine, key, now):
        logger.info("api key used", key=key.id, account=str(key.account))
    return token


async def token_for(services: Services, key: KeyRecord, not_this: SecretStr | None = None) -> SecretStr:
    """Raises problems that say what has to be set."""
    require_listed(services, key.account)
    try:
        return await services.account_tokens.token_for(key, not_this)
    except NotFound:
        services.account_tokens.drop(key.id)
        detail = f"there is no ServiceAccount {key.account.name} in namespace {key.account.namespace}; create it"
        raise Problem(FORBIDDEN, "no-service-account", detail) from None
    except KubeError as error:
        if error.status == FORBIDDEN:
            detail = f"the api may not make tokens for {key.account} ({error}); list it in {VALUE}"
            raise Problem(FORBIDDEN, "api-keys-not-configured", detail) from error
        raise refused(error, key.account.namespace, own_token=False) from error


def require_listed(services: Services, account: Account) -> None:
    """Raises 403 for a ServiceAccount that the installation has not opened to keys."""
    if str(account) not in services.settings.api_key_accounts:
        raise Problem(FORBIDDEN, "api-keys-not-configured", f"API keys may not stand for {account}; list it in {VALUE}")


def _refused(key_id: str, detail: str) -> Problem:
    logger.warning("api key refused", key=key_id)
    return Problem(401, "unauthorized", detail)
