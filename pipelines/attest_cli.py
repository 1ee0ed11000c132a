"""``hubaudit attest`` and ``hubaudit verify-attestation``: sign a report, and check such a signature."""

from pathlib import Path

import click

from pipelines.command import Exit, ends_with_a_sentence, load_report, sentence
from pipelines.output import check_targets, write_document
from pipelines.settings import load_settings

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("report", type=FILE)
@click.option("--key", type=FILE, metavar="KEY.pem", help="Private key: Ed25519, ECDSA or RSA, PEM.")
@click.option("--keyless", is_flag=True, help="Sign through Sigstore; publishes your identity in its log.")
@click.option("--output", required=True, metavar="PATH", help="Where the attestation goes; - is stdout.")
@ends_with_a_sentence
def attest(report: Path, key: Path | None, keyless: bool, output: str) -> None:
    """Sign REPORT, a JSON report: an in-toto statement in a DSSE envelope.

    The statement names both commits, the report's SHA-256, the version of the tool, the digests of its rules and
    thresholds, and the verdict. An encrypted key's password is read from HUBAUDIT_KEY_PASSWORD.

    \b
    Example:
      openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out pub.pem
      hubaudit attest report.json --key key.pem --output report.att.json
    """
    if (key is None) == (not keyless):
        raise click.UsageError("sign with --key KEY.pem, or with --keyless; one of the two.")
    check_targets([("attestation", output)])
    loaded, raw = load_report(report), report.read_bytes()
    try:
        if key is None:
            from pipelines.attest_keyless import sign_keyless

            signed = sign_keyless(loaded, raw)
        else:
            from pipelines.attest import sign

            signed = sign(loaded, raw, key.read_bytes(), password=load_settings().key_password)
    except ImportError as error:
        raise _missing(error) from None
    write_document(signed, output)


@click.command("verify-attestation")
@click.argument("attestation", type=FILE)
@click.argument("report", required=False, type=FILE)
@click.option("--key", type=FILE, metavar="PUB.pem", help="The public key that you trust.")
@click.option("--identity", metavar="WHO", help="Keyless: who has to have signed (e-mail address or workflow URL).")
@click.option("--issuer", metavar="URL", help="Keyless: who vouches for that identity.")
@ends_with_a_sentence
def verify_attestation(
    attestation: Path, report: Path | None, key: Path | None, identity: str | None, issuer: str | None
) -> None:
    """Check who signed ATTESTATION, and that it is about REPORT.

    \b
    Exit codes:
      0  signed by this key, and about this report
      1  signed by another key, changed, about another report, or no audit attestation
      2  wrong usage, or a key file that is none
      3  truncated or unreadable: nothing was concluded

    \b
    Example:
      hubaudit verify-attestation report.att.json report.json --key pub.pem
    """
    keyless = bool(identity and issuer)
    if (key is None) == (not keyless) or (key and (identity or issuer)):
        raise click.UsageError("verify with --key PUB.pem, or with --identity and --issuer.")
    from reports.attestation import summary

    raw, document = attestation.read_bytes(), report.read_bytes() if report else None
    try:
        from pipelines.attest import NotAttested, verify

        try:
            if key is not None:
                predicate = verify(raw, key.read_bytes(), document)
            else:
                from pipelines.attest_keyless import verify_keyless

                predicate = verify_keyless(raw, identity=identity or "", issuer=issuer or "", report=document)
        except NotAttested as error:
            click.echo(f"hubaudit: {sentence(error)}", err=True)
            raise SystemExit(int(Exit.FINDING)) from None
    except ImportError as error:
        raise _missing(error) from None
    click.echo(f"attested: {summary(predicate)}")
    if document is None:
        click.echo("hubaudit: no report was given, so none was compared with the attestation.", err=True)


def _missing(error: ImportError) -> click.UsageError:
    return click.UsageError(f"this needs packages that are not installed ({error.name}): pip install 'hubaudit[sign]'.")
