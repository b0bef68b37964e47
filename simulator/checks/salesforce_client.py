"""Drives the simulator through simple-salesforce, the client library that most Python programs use.

    pip install simple-salesforce
    python salesforce_client.py --keys FOLDER                       # writes private.pem and public.der
    salesforce-simulator --port 8802 --page 3 --public-key FOLDER/public.der &
    python salesforce_client.py http://127.0.0.1:8802 FOLDER

The library speaks TLS to salesforce.com only, so its connections are led to the simulator with the host's name kept.
The simulator's org must be fresh. Prints "N passed, N failed"; exits with 1 if any failed.
"""

import datetime
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests
from simple_salesforce import Salesforce
from simple_salesforce.exceptions import (
    SalesforceAuthenticationFailed,
    SalesforceExpiredSession,
    SalesforceMalformedRequest,
    SalesforceResourceNotFound,
)

KEY = "3MVG9exampleconsumerkey"
SECRET = "example-consumer-secret"
USER = "integration@example.com"
DOMAIN = "example.my"
EXTERNAL = "HubSpot_Contact_Id__c"


def make_keys(folder):
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.DER, form.PublicFormat.PKCS1)
    Path(folder, "private.pem").write_bytes(private)
    Path(folder, "public.der").write_bytes(public)


class Led(requests.adapters.HTTPAdapter):
    """Leads every connection to one address."""

    def __init__(self, base_url):
        self.base = urlsplit(base_url)
        super().__init__()

    def send(self, request, **kwargs):
        parts = urlsplit(request.url)
        request.headers["Host"] = parts.netloc
        request.url = urlunsplit((self.base.scheme, self.base.netloc, parts.path, parts.query, ""))
        return super().send(request, **kwargs)


def main(base_url, folder):
    session = requests.Session()
    session.mount("https://", Led(base_url))
    passed = failed = 0

    def check(name, run):
        nonlocal passed, failed
        try:
            run()
            passed += 1
        except Exception as error:  # a check may fail in any way
            failed += 1
            print(f"FAILED {name}: {type(error).__name__}: {str(error)[:400]}")

    def refused(kind, run):
        try:
            run()
        except kind as error:
            return error
        raise AssertionError(f"{kind.__name__} was expected")

    def connect(**arguments):
        return Salesforce(session=session, **arguments)

    client = connect(consumer_key=KEY, consumer_secret=SECRET, domain=DOMAIN, version="67.0")
    ids = {}

    def flows():
        private = str(Path(folder, "private.pem"))
        connect(username=USER, consumer_key=KEY, privatekey_file=private).limits()
        connect(username=USER, consumer_key=KEY, consumer_secret=SECRET, password="passwordtoken").limits()
        connect(username=USER, password="password", security_token="token").limits()
        error = refused(
            SalesforceAuthenticationFailed,
            lambda: connect(username="x@example.com", consumer_key=KEY, privatekey_file=private),
        )
        assert "approved" in str(error), error
        refused(SalesforceAuthenticationFailed, lambda: connect(username=USER, password="x", security_token="y"))

    def describe():
        assert "Contact" in [one["name"] for one in client.describe()["sobjects"]]
        fields = {one["name"]: one for one in client.Contact.describe()["fields"]}
        assert fields["LastName"]["nillable"] is False and fields["LastName"]["createable"]
        assert fields[EXTERNAL]["externalId"] and fields[EXTERNAL]["unique"]
        assert "Company" not in fields

    def single():
        made = client.Contact.create({"LastName": "O'Brien", "Email": "o.brien@example.com"})
        assert made["success"] and len(made["id"]) == 18, made
        ids["contact"] = made["id"]
        assert client.Contact.update(made["id"], {"Title": "Check"}) == 204
        read = client.Contact.get(made["id"])
        assert (read["Title"], read["Phone"], read["Name"]) == ("Check", None, "O'Brien"), read
        assert client.api_usage["api-usage"].used > 0, client.api_usage

    def refusals():
        error = refused(SalesforceMalformedRequest, lambda: client.Contact.create({"FirstName": "X"}))
        assert error.content[0]["errorCode"] == "REQUIRED_FIELD_MISSING", error.content
        error = refused(SalesforceMalformedRequest, lambda: client.query("SELECT Company FROM Contact"))
        assert error.content[0]["errorCode"] == "INVALID_FIELD", error.content
        refused(SalesforceResourceNotFound, lambda: client.Contact.get("003ak0000000zzz"))

    def upsert():
        assert client.Contact.upsert(f"{EXTERNAL}/1", {"LastName": "One"}) == 201
        assert client.Contact.upsert(f"{EXTERNAL}/1", {"LastName": "Uno"}) == 200
        assert client.Contact.get_by_custom_id(EXTERNAL, "1")["LastName"] == "Uno"

    def pages():
        for number in range(2, 9):
            client.Contact.upsert(f"{EXTERNAL}/{number}", {"LastName": f"Name {number}"})
        answer = client.query("SELECT Id FROM Contact")
        assert not answer["done"] and len(answer["records"]) == 3 and answer["totalSize"] == 9, answer
        answer = client.query_more(answer["nextRecordsUrl"], True)
        assert len(answer["records"]) == 3
        names = [one["LastName"] for one in client.query_all_iter("SELECT LastName FROM Contact ORDER BY LastName")]
        assert len(names) == 9 and names == sorted(names), names
        assert client.query("SELECT COUNT() FROM Contact")["totalSize"] == 9
        found = client.query_all("SELECT Id FROM Contact WHERE LastName = 'O\\'BRIEN'")
        assert [one["Id"] for one in found["records"]] == [ids["contact"]], found

    def collections():
        records = [
            {"attributes": {"type": "Contact"}, "LastName": "Good", EXTERNAL: "100"},
            {"attributes": {"type": "Contact"}, "FirstName": "Bad", EXTERNAL: "101"},
        ]
        answer = client.restful(
            f"composite/sobjects/Contact/{EXTERNAL}", method="PATCH", json={"allOrNone": False, "records": records}
        )
        assert [one["success"] for one in answer] == [True, False] and answer[0]["created"], answer

    def bulk():
        records = [{EXTERNAL: str(number), "LastName": f"Bulk, {number}"} for number in range(200, 260)]
        records.append({EXTERNAL: "999", "LastName": ""})
        results = client.bulk2.Contact.upsert(records=records, external_id_field=EXTERNAL)
        (job,) = results
        assert (job["numberRecordsProcessed"], job["numberRecordsFailed"]) == (61, 1), job
        assert "REQUIRED_FIELD_MISSING" in client.bulk2.Contact.get_failed_records(job["job_id"])
        assert client.bulk2.Contact.get_successful_records(job["job_id"]).count("\n") == 61
        pages = list(client.bulk2.Contact.query("SELECT Id, LastName FROM Contact WHERE LastName LIKE 'Bulk%'"))
        assert pages[0].count("\n") == 61, pages[0][:200]

    def deletion():
        start = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=5)
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=5)
        assert client.Contact.delete(ids["contact"]) == 204
        gone = client.query_all("SELECT Id FROM Contact WHERE IsDeleted = true", include_deleted=True)
        assert [one["Id"] for one in gone["records"]] == [ids["contact"]], gone
        assert [one["id"] for one in client.Contact.deleted(start, end)["deletedRecords"]] == [ids["contact"]]
        assert len(client.Contact.updated(start, end)["ids"]) == 69
        refused(SalesforceResourceNotFound, lambda: client.Contact.delete(ids["contact"]))

    def expiry():
        other = Salesforce(session_id="not-a-session", instance_url=f"https://{DOMAIN}.salesforce.com", session=session)
        refused(SalesforceExpiredSession, lambda: other.limits())

    checks = (flows, describe, single, refusals, upsert, pages, collections, bulk, deletion, expiry)
    for run in checks:
        check(run.__name__, run)
    print(f"{passed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    if sys.argv[1] == "--keys":
        make_keys(sys.argv[2])
    else:
        sys.exit(1 if main(sys.argv[1], sys.argv[2]) else 0)
