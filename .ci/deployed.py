"""The deployed way, without an account: the template is deployed into an AWS on loopback, a CSV is uploaded, and the event travels
EventBridge -> SQS -> event source mapping -> the real binary -> the HubSpot simulator.

    deployed.py --runs-here FOLDER
    deployed.py --build FOLDER --ministack PROGRAM --sam PROGRAM --simulator PROGRAM --work FOLDER

FOLDER of --build is what `sam build` leaves (template.yaml and the functions' folders). The AWS is ministack: it runs the functions as
processes of this machine, under the credentials of their roles, and refuses what the roles' policies do not allow (AUTH=true). It is not AWS;
what is proved is that template, roles, events and binary fit together.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import boto3
import botocore.config
from samcli.yamlhelper import yaml_dump, yaml_parse

REGION, STACK, SECRET, TOKEN = "us-east-1", "hubferry-ci", "hubferry/hubspot", "pat-na1-00000000-0000-4000-8000-000000000001"
START_MAX, DEPLOY_MAX, RUN_MAX = 60, 240, 120  # seconds
ROWS = 250

CONFIG = """version: 1
hubspot:
  default: {{ secret: {secret}, base_url: "{hubspot}" }}
imports:
  - {{ name: contacts, match: incoming/contacts/*.csv, object: contacts, key: email }}
captures:
  - {{ name: contacts, resource: crm.contacts, output: "s3://{bucket}/captures/contacts/", lag_seconds: 1 }}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(name, command, work, env=None, ready=None):
    """A process and what it writes; its whole group ends with the block."""
    log = work / f"{name}.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=env, start_new_session=True)
    try:
        found = until(f"{name} to be ready", START_MAX, lambda: ready(log), lambda: process.poll() is not None)
        yield found
    except BaseException:
        print(f"--- the end of {name}'s log", log.read_text(errors="replace")[-6000:], sep="\n")
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def until(what, seconds, look, is_over=lambda: False):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        if is_over():
            break
        time.sleep(0.25)
    raise SystemExit(f"waited {seconds} s for {what}")


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def check(condition, text):
    if not condition:
        raise SystemExit(f"not as it should be: {text}")


def main():
    if sys.argv[1:2] == ["--runs-here"]:
        return runs_here(pathlib.Path(sys.argv[2]))
    parser = argparse.ArgumentParser()
    for name in ("build", "ministack", "sam", "simulator", "work"):
        parser.add_argument(f"--{name}", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    # Nothing of the machine's own AWS settings; HOME is the work folder for the same reason.
    plain = {"PATH": os.environ["PATH"], "HOME": str(work), "TMPDIR": str(work), "LANG": "C.UTF-8"}
    aws = {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION, "AWS_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true", "SAM_CLI_TELEMETRY": "0",
    }
    os.environ.update(aws)
    stack_env = plain | aws | {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "LAMBDA_EXECUTOR": "local", "AUTH": "true"}
    ready = lambda _: answers(f"{endpoint}/_ministack/health")
    address = lambda log: (re.search(r"http://\S+", log.read_text(errors="replace")) or [None])[0]
    simulator = [str(arguments.simulator), "--port", "0", "--burst", "190"]
    with running("hubspot-simulator", simulator, work, plain, address) as hubspot, \
            running("ministack", [str(arguments.ministack)], work, stack_env, ready):
        deploy(arguments, plain | aws)
        travel(hubspot)


def runs_here(build):
    """Whether what was built is for this machine: 0 if it is."""
    machine = {"x86_64": 62, "aarch64": 183}.get(os.uname().machine)
    binaries = list(build.glob("*/bootstrap"))
    return int(not binaries or any(int.from_bytes(binary.read_bytes()[18:20], "little") != machine for binary in binaries))


def deploy(arguments, env):
    began = time.monotonic()
    command = [
        str(arguments.sam), "deploy", "--template-file", str(simplified(arguments.build.resolve())), "--stack-name", STACK, "--resolve-s3",
        "--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND", "--no-confirm-changeset", "--no-progressbar",
        # The schedules would start captures and sweeps beside what is looked at; they are invoked by hand below.
        "--parameter-overrides", "CaptureScheduleState=DISABLED", "ResumeScheduleState=DISABLED",
        # ministack takes a secret's name for its ARN where a template refers to it, so that it is made beforehand.
        f"ExistingSecretName={SECRET}", f"Architecture={os.uname().machine.replace('aarch64', 'arm64')}",
    ]
    boto3.client("secretsmanager").create_secret(Name=SECRET, SecretString=json.dumps({"access_token": TOKEN}))
    done = subprocess.run(command, env=env, cwd=arguments.work, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEPLOY_MAX)
    if done.returncode:
        raise SystemExit(f"sam deploy failed:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
    print(f"deployed in {time.monotonic() - began:.0f} s")


def simplified(build):
    """The built template without what ministack cannot take: alarms that compute become alarms on the first of their metrics."""
    template = yaml_parse((build / "template.yaml").read_text())
    changed = []
    for name, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::CloudWatch::Alarm" and "Metrics" in properties:
            first = next(one["MetricStat"] for one in properties.pop("Metrics") if "MetricStat" in one)
            properties |= first["Metric"] | {"Period": first["Period"], "Statistic": first["Stat"]}
            changed.append(name)
        for event in properties.get("Events", {}).values():
            scaling = event["Properties"].get("ScalingConfig", {})
            if isinstance(scaling.get("MaximumConcurrency"), dict):
                # It would take a parameter of the type Number for a text, and its poller would stumble.
                scaling["MaximumConcurrency"] = template["Parameters"][scaling["MaximumConcurrency"]["Ref"]]["Default"]
    print(f"ministack knows no metric math; on one metric each: {', '.join(changed)}")
    path = build / "template-for-ministack.yaml"
    path.write_text(yaml_dump(template))
    return path


def travel(hubspot):
    quick = botocore.config.Config(retries={"max_attempts": 2}, read_timeout=RUN_MAX)
    client = lambda name: boto3.client(name, config=quick)
    stack = client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]
    check(stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE"), stack["StackStatus"])
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    bucket = outputs["BucketName"]
    s3, queues, functions = client("s3"), client("sqs"), client("lambda")

    # Loopback is in the clear, which is just what this policy refuses the functions.
    check("aws:SecureTransport" in s3.get_bucket_policy(Bucket=bucket)["Policy"], "the bucket is for TLS only")
    s3.delete_bucket_policy(Bucket=bucket)

    config = CONFIG.format(secret=SECRET, hubspot=hubspot, bucket=bucket)
    s3.put_object(Bucket=bucket, Key="config/hubferry.yaml", Body=config.encode())

    rows = [f"person{number}@example.com,Ada{number}" for number in range(ROWS - 1)] + ["broken,Bea"]
    s3.put_object(Bucket=bucket, Key="incoming/contacts/a.csv", Body="\n".join(["email,firstname", *rows, ""]).encode())
    began = time.monotonic()
    keys = lambda prefix: [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]
    read = lambda key: s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    until("the import's report", RUN_MAX, lambda: keys("reports/import/contacts/"))
    print(f"an upload became a report in {time.monotonic() - began:.1f} s")
    report = json.loads(read(keys("reports/import/contacts/")[0]))
    shown = json.dumps(report)
    check(report["outcome"] == "done", shown)
    counts = report["rows"]
    check((counts["read"], counts["created"], counts["rejected"]) == (ROWS, ROWS - 1, 1), shown)
    check(report["source"]["uri"] == f"s3://{bucket}/incoming/contacts/a.csv", shown)
    rejects = read(report["rejects"].removeprefix(f"s3://{bucket}/"))
    check("broken,Bea" in rejects and "INVALID_EMAIL" in rejects, rejects)
    with urllib.request.urlopen(urllib.request.Request(
        f"{hubspot}/crm/v3/objects/contacts?limit=100", headers={"Authorization": f"Bearer {TOKEN}"}
    ), timeout=10) as answer:
        check(len(json.load(answer)["results"]) == 100, "HubSpot has the contacts")
    waiting = lambda url: queues.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    empty = lambda one: one["ApproximateNumberOfMessages"] == one["ApproximateNumberOfMessagesNotVisible"] == "0"
    until("the message to be deleted", RUN_MAX, lambda: empty(waiting(outputs["QueueUrl"])))
    check(empty(waiting(outputs["DeadLetterQueueUrl"])), "nothing is in the dead-letter queue")

    # What schedules send, to the other functions, each under its own role.
    def invoke(function, event):
        answer = functions.invoke(FunctionName=outputs[function], Payload=json.dumps(event).encode())
        payload = answer["Payload"].read().decode()
        check("FunctionError" not in answer, payload)
        return json.loads(payload)

    time.sleep(2.5)  # the capture's lag, and what the simulated search index trails behind
    report = invoke("CaptureFunctionName", {"job": "capture", "name": "contacts"})
    check(report["outcome"] == "done" and report["rows"]["read"] >= ROWS - 1, json.dumps(report))
    check(keys("captures/contacts/") and keys("manifests/"), "the capture wrote its objects and its manifest")
    answer = invoke("ResumeFunctionName", {"job": "resume"})
    check(answer["outcome"] == "nothing", json.dumps(answer))
    again = invoke("ImportFunctionName", {"job": "import", "bucket": bucket, "key": "incoming/contacts/a.csv"})
    check(again["outcome"] == "duplicate", json.dumps(again))
    print(f"{ROWS} rows imported, captured again, and the same object once more is a duplicate: each function under its own role")


if __name__ == "__main__":
    sys.exit(main())
