"""The catalogue: what is packaged, what may override it, and how it compares with an endpoint's own list."""

import doctest
from decimal import Decimal

import pytest

from captions.gateway import catalogue
from captions.gateway.catalogue import Catalogue, CatalogueError, Modality, Model, load
from captions_cli.catalogue_comparison import compare_with_endpoint

OMNI = "Qwen/Qwen3-Omni-30B-A3B-Instruct"
VL_8B = "Qwen/Qwen3-VL-8B-Instruct"


def served(models: Catalogue, name: str, endpoint: str) -> tuple[Model, str]:
    model = models.served(name, endpoint)
    assert model is not None
    return model


def test_the_examples_of_the_module_hold() -> None:
    assert doctest.testmod(catalogue).failed == 0


def test_the_packaged_catalogue_has_every_model_of_the_field() -> None:
    models = load().models

    assert len(models) == 15
    assert {model.provider for model in models.values()} == {
        "DeepSeek",
        "Qwen",
        "Zhipu",
        "OpenAI",
        "Tencent",
        "ByteDance",
    }


@pytest.mark.parametrize(
    ("name", "input_price", "output_price", "context"),
    [
        ("deepseek-ai/DeepSeek-V4-Flash", "0.27", "1.10", 128_000),
        ("GPT-4o", "2.50", "10.00", 128_000),
        (VL_8B, None, "0.50", 32_000),
        ("GLM-4.5V", None, "0.01", 32_000),
        ("Doubao-Seed-2.0-Pro", None, "3.00", 128_000),
    ],
)
def test_prices_are_exact_and_an_unpublished_one_is_none(
    name: str, input_price: str | None, output_price: str, context: int
) -> None:
    model = load().model(name)

    assert model.input_price == (None if input_price is None else Decimal(input_price))
    assert model.output_price == Decimal(output_price)
    assert model.context == context


def test_measured_latencies_are_kept_per_kind() -> None:
    latency = load().model(OMNI).latency

    assert (latency["image"].p50, latency["image"].p99) == (0.81, 2.3)
    assert (latency["audio"].p50, latency["audio"].p99, latency["audio"].longest) == (3.1, 8.2, 18.0)
    assert load().model("GLM-4.5V").latency == {}


def test_every_timeout_lies_above_the_measured_p99() -> None:
    for model in load().models.values():
        for kind, latency in model.latency.items():
            assert model.timeout_s(kind) > (latency.longest or latency.p99)


@pytest.mark.parametrize(
    ("kind", "duration_s", "expected"),
    [
        ("image", None, 15.0),
        ("audio", None, 30.0),
        ("audio", 300.0, 30.0),
        ("audio", 900.0, 90.0),
        ("audio", 7_200.0, 120.0),
    ],
)
def test_long_sound_is_given_more_time_up_to_a_limit(kind: Modality, duration_s: float | None, expected: float) -> None:
    assert load().model(OMNI).timeout_s(kind, duration_s) == expected


def test_only_media_types_of_a_kind_the_model_understands_are_accepted() -> None:
    models = load()

    assert models.model(VL_8B).accepts("image", "image/jpeg")
    assert not models.model(VL_8B).accepts("image", "image/gif")
    assert not models.model(VL_8B).accepts("audio", "audio/wav")
    assert models.model(OMNI).accepts("audio", "audio/wav")


def test_an_override_changes_single_fields_adds_models_and_disables_others() -> None:
    changed = load(
        """
        [models."GPT-4o"]
        input_price = 2.0
        enabled = true

        [models."GLM-4.5V"]
        enabled = false

        [models."llava:7b"]
        provider = "self"
        modalities = ["text", "image"]
        context = 4096
        """
    )

    assert changed.model("GPT-4o").input_price == Decimal("2.0")
    assert changed.model("GPT-4o").output_price == Decimal("10.00")
    assert changed.model("llava:7b").timeout_s("image") == 15.0
    assert changed.model("llava:7b").input_price is None
    with pytest.raises(CatalogueError, match=r"GLM-4\.5V"):
        changed.model("GLM-4.5V")
    assert load().model("GPT-4o").input_price == Decimal("2.50")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("[models", "not valid TOML"),
        ('[models."GPT-4o"]\ncontext = -1', "models.GPT-4o.context"),
        ('[models."GPT-4o"]\nprice = 1', "models.GPT-4o.price"),
        ('[models."GPT-4o"]\ninput_price = -1.0', "models.GPT-4o.input_price"),
        ('[models."new"]\nprovider = "x"', "models.new.modalities"),
        ('[models."deaf"]\nprovider = "x"\ncontext = 9\nmodalities = ["text", "audio"]', "takes no part"),
        ('[endpoints."http://h/v1"]\ndialect = "klingon"', "unknown dialect"),
        ('[endpoints."http://h/v1"]\nnames = { nobody = "x" }', "nobody"),
        ("[prices]\n", "prices"),
        ("models = 3", "tables"),
    ],
)
def test_a_wrong_override_is_refused_with_the_place_named(override: str, named: str) -> None:
    with pytest.raises(CatalogueError, match=named):
        load(override)


def test_an_empty_override_changes_nothing() -> None:
    assert load("  \n") == load()


def test_a_dialect_changes_how_a_model_is_taken_and_never_what_it_understands() -> None:
    changed = load(
        """
        [endpoints."http://ollama:11434/v1/"]
        dialect = "ollama"
        only_named = true
        free = true
        names = { "Qwen/Qwen3-VL-8B-Instruct" = "qwen3-vl:8b", "Qwen3-32B" = "qwen3:32b" }

        [endpoints."https://dashscope/v1"]
        dialect = "dashscope"

        [endpoints."http://sglang/v1"]
        dialect = "sglang"
        """
    )

    model, name = served(changed, VL_8B, "http://ollama:11434/v1")
    assert (name, set(model.takes)) == ("qwen3-vl:8b", {"image_url_data"})
    assert model.input_price == model.output_price == 0
    text_only, _ = served(changed, "Qwen3-32B", "http://ollama:11434/v1")
    assert text_only.modalities == {"text"}
    assert changed.served("GPT-4o", "http://ollama:11434/v1") is None

    omni, name = served(changed, OMNI, "https://dashscope/v1/")
    assert name == OMNI
    assert omni.streaming_only
    assert omni.audio_data_prefix == "data:;base64,"
    assert not served(changed, VL_8B, "https://dashscope/v1")[0].streaming_only

    sglang, _ = served(changed, OMNI, "http://sglang/v1")
    assert sglang.modalities == {"text", "image", "audio", "video"}
    assert "input_audio" not in sglang.takes
    assert {"audio_url", "audio_url_data"} <= sglang.takes


def test_a_model_loses_the_kinds_a_server_cannot_carry() -> None:
    changed = load('[endpoints."http://o/v1"]\ndialect = "ollama"')

    assert served(changed, OMNI, "http://o/v1")[0].modalities == {"text", "image"}


def test_an_endpoint_that_is_not_named_takes_every_entry_as_it_stands() -> None:
    models = load()

    assert models.served(OMNI, "https://anything/v1") == (models.model(OMNI), OMNI)


def test_the_comparison_names_what_is_missing_new_and_priced_otherwise() -> None:
    payload = {
        "data": [
            {"id": "GPT-4o", "pricing": {"prompt": "0.000002", "completion": "0.00001"}, "context_length": 64_000},
            {"id": "GLM-4.6V", "pricing": {"prompt": "0.0000003", "completion": "0.0000008"}},
            {"id": "brand/new", "pricing": {"prompt": "-1", "completion": "-1"}},
            {"id": VL_8B, "max_model_len": 32_768},
            {"no": "id"},
        ]
    }

    result = compare_with_endpoint(load(), payload)

    assert result.present == ("GPT-4o", VL_8B, "GLM-4.6V")
    assert "Hunyuan-Vision" in result.missing
    assert len(result.present) + len(result.missing) == len(load().models)
    assert result.new == ("brand/new",)
    changes = {(change.model, change.what): (change.catalogue, change.endpoint) for change in result.price_changes}
    assert changes == {
        ("GPT-4o", "input"): (Decimal("2.50"), Decimal(2)),
        ("GLM-4.6V", "input"): (None, Decimal("0.3")),
    }
    assert result.contexts == {"GPT-4o": 64_000}


def test_the_comparison_respects_the_names_of_an_endpoint() -> None:
    changed = load('[endpoints."http://o/v1"]\ndialect = "ollama"\nonly_named = true\nnames = { "GLM-4.6V" = "glm:v" }')

    result = compare_with_endpoint(changed, {"data": [{"id": "glm:v"}]}, "http://o/v1")

    assert result.present == ("GLM-4.6V",)
    assert result.missing == ()
    assert result.new == ()


def test_a_payload_that_is_no_list_of_models_is_refused() -> None:
    with pytest.raises(CatalogueError, match="not a list"):
        compare_with_endpoint(load(), {"error": "no"})
