"""A CSV into HubSpot contacts as a careful user writes it with HubSpot's official Python client: batch upserts of 100, one after the other.

    pip install hubspot-api-client
    python batching.py FILE BASE_URL TOKEN

Refusals for the moment (429, 5xx) and lost connections are repeated, also of POST, which an upsert allows; `Retry-After` is heeded. Rows that
a 207 names as failed are reported; where a call fails for good, its hundred rows are.
"""

import csv
import sys

from hubspot import HubSpot
from hubspot.crm.contacts import (
    ApiException,
    BatchInputSimplePublicObjectBatchInputUpsert,
    SimplePublicObjectBatchInputUpsert,
)
from rows import properties, tell
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

BATCH = 100
RETRY = Retry(total=8, backoff_factor=0.5, status_forcelist=(423, 429, 477, 500, 502, 503, 504, 524), allowed_methods=None)


def main(path, base_url, token):
    batches = HubSpot(access_token=token, retry=RETRY).crm.contacts.batch_api
    batches.api_client.configuration.host = base_url
    written, failed = 0, []

    def send(rows):
        nonlocal written
        inputs = [
            SimplePublicObjectBatchInputUpsert(
                id=row["email"], id_property="email", properties=row, object_write_trace_id=str(at)
            )
            for at, row in enumerate(rows)
        ]
        try:
            answer = batches.upsert(BatchInputSimplePublicObjectBatchInputUpsert(inputs=inputs))
        except (ApiException, HTTPError, ValueError):
            failed.extend(row["email"] for row in rows)
            return
        written += len(answer.results)
        for error in getattr(answer, "errors", None) or []:
            for trace in error.context.get("objectWriteTraceId", []):
                failed.append(rows[int(trace)]["email"])

    with open(path, newline="", encoding="utf-8") as file:
        rows = []
        for row in csv.DictReader(file):
            rows.append(properties(row))
            if len(rows) == BATCH:
                send(rows)
                rows = []
        if rows:
            send(rows)
    tell(written, failed)


if __name__ == "__main__":
    main(*sys.argv[1:])
