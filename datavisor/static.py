"""How collected static files are named: by their content, and so are the modules that our modules import."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticFiles(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # whitenoise ships no types
    # Django's own switch would look at other packages' scripts as well, some of which name files that are not there.
    patterns = (
        *CompressedManifestStaticFilesStorage.patterns,
        (
            "vlm/*.js",
            (
                (
                    r"""(?P<matched>import\s*(?P<names>\{[^}]*\})\s*from\s*["'](?P<url>\./[^"']+)["'];)""",
                    """import %(names)s from "%(url)s";""",
                ),
                (r"""(?P<matched>import\s*["'](?P<url>\./[^"']+)["'];)""", """import "%(url)s";"""),
            ),
        ),
    )
