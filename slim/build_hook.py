"""Takes the listed modules from the repository around this folder; in an archive of the sources they lie in it already."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Taken(BuildHookInterface[Any]):
    """Into an sdist they go as `src/metaformer/...`, into a wheel as `metaformer/...`, with the licence."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raises FileNotFoundError where a listed module is not there."""
        here = Path(self.root)
        base = here if (here / "src" / "metaformer").is_dir() else here.parent
        name = self.metadata.core.name.replace("-", "_")
        inside = {
            "sdist": ("src/metaformer", "LICENSE"),
            "wheel": ("metaformer", f"{name}-{self.metadata.version}.dist-info/licenses/LICENSE"),
        }
        folder, licence = inside[self.target_name]
        taken = {str(base / "src" / "metaformer" / module): f"{folder}/{module}" for module in self.config["modules"]}
        missing = [path for path in taken if not Path(path).exists()]
        if missing:
            raise FileNotFoundError(f"slim/pyproject.toml lists what is not there: {', '.join(missing)}")
        build_data["force_include"] |= taken | {str(base / "LICENSE"): licence}
