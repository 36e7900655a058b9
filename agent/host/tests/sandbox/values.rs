//! Values cross both ways, for every type, and what is wrong is refused before a pack sees it.

use outhaul_protocol::error::Code;
use outhaul_protocol::value::Value;
use serde_json::{Value as Json, json};

use crate::support::{Caller, call, pack};

/// What a call gives, as JSON.
async fn gives(name: &str, command: &str, params: Json) -> Json {
    let pack = pack(name).await;
    let ended = call(&pack, command, params).await;
    let ty = pack.command(command).expect("known").result.as_ref();
    ended.value().to_json(ty)
}

#[tokio::test]
async fn every_type_comes_back_as_it_went() {
    let person = json!({
        "name": "Ada", "nick_name": null, "home": {"x": -1, "y": 2}, "tags": ["a", ""], "colour": "dark_blue", "photo": "AP8=",
    });
    let attempt = json!({"outcome": {"error": "no"}, "bare": {"ok": null}, "ok_only": {"ok": 3}, "error_only": {"error": "red"}});
    let values = [
        ("bool", vec![json!(true), json!(false)]),
        ("s8", vec![json!(-128), json!(127)]),
        ("u8", vec![json!(255)]),
        ("s16", vec![json!(-32768), json!(32767)]),
        ("u16", vec![json!(65535)]),
        ("s32", vec![json!(i32::MIN), json!(i32::MAX)]),
        ("u32", vec![json!(u32::MAX)]),
        ("s64", vec![json!(i64::MIN), json!(i64::MAX)]),
        ("u64", vec![json!(u64::MAX)]),
        ("f32", vec![json!(0.1), json!("NaN"), json!("-Infinity")]),
        ("f64", vec![json!(1e300), json!("Infinity")]),
        ("char", vec![json!("ß"), json!("🎈")]),
        ("string", vec![json!(""), json!("x\n\u{0}y")]),
        ("bytes", vec![json!(""), json!("AP8=")]),
        ("strings", vec![json!([]), json!(["a", "b"])]),
        ("numbers", vec![json!([1, 2, 3])]),
        ("lists", vec![json!([[], [-1, 2]])]),
        ("tuple", vec![json!([7, "x", true])]),
        ("pairs", vec![json!([["a", "b"], ["", ""]])]),
        ("point", vec![json!({"x": 1, "y": -1})]),
        ("record", vec![person.clone()]),
        ("records", vec![json!([person, person])]),
        ("enum", vec![json!("red"), json!("dark_blue")]),
        (
            "variant",
            vec![
                json!("nothing"),
                json!({"circle": 0.5}),
                json!({"corner": {"x": 0, "y": 0}}),
                json!({"label": null}),
                json!({"label": "l"}),
            ],
        ),
        ("flags", vec![json!([]), json!(["read", "run_all"])]),
        ("option", vec![json!(null), json!(7)]),
        ("result", vec![attempt]),
    ];
    let pack = pack("values").await;
    for (ty, values) in values {
        let command = format!("values.same_{ty}");
        for value in values {
            let ended = call(&pack, &command, json!({"value": value})).await;
            let back = ended.value().to_json(pack.command(&command).expect("known").result.as_ref());
            assert_eq!(back, value, "{command}");
        }
    }
}

#[tokio::test]
async fn nothing_options_and_kebab_names() {
    assert_eq!(gives("values", "values.nothing", json!({})).await, Json::Null);
    assert_eq!(gives("values", "values.two_parameters", json!({"first_word": "ab", "times": 2})).await, json!("abab"));
    assert_eq!(gives("values", "values.two_parameters", json!({"first_word": "ab"})).await, json!("ab"));
    let outcome = json!({"outcome": {"ok": 1}, "bare": {"error": null}, "ok_only": {"ok": 7}, "error_only": {"error": "dark_blue"}});
    assert_eq!(gives("values", "values.same_outcome", json!({"value": {"ok": 1}})).await, outcome);
}

#[tokio::test]
async fn the_top_level_result_is_the_calls_ending() {
    let pack = pack("values").await;
    assert_eq!(call(&pack, "values.ending", json!({"outcome": {"ok": 5}})).await.value(), &Value::Int(5));
    let ended = call(&pack, "values.ending", json!({"outcome": {"error": {"circle": 1.5}}})).await;
    assert_eq!(ended.code(), Code::CommandFailed);
    assert_eq!(ended.failure().detail, Some(Value::Map(vec![("circle".into(), Value::Float(1.5))])));
    assert_eq!(call(&pack, "values.silent", json!({"well": true})).await.value(), &Value::Null);
    let ended = call(&pack, "values.silent", json!({"well": false})).await;
    assert_eq!((ended.code(), &ended.failure().detail), (Code::CommandFailed, &None));
    assert_eq!(ended.failure().message, "`values.silent` failed");
}

#[tokio::test]
async fn an_error_is_its_sentence_and_its_detail() {
    let pack = pack("echo").await;
    let ended = call(&pack, "echo.fail", json!({"message": "on\npurpose"})).await;
    assert_eq!((ended.code(), ended.failure().message.as_str()), (Code::CommandFailed, "asked: on purpose"));
    let ended = call(&pack, "echo.fail", json!({"message": ""})).await;
    assert_eq!(ended.failure().detail, Some("silent".into()));
}

#[tokio::test]
async fn wrong_parameters_never_reach_the_pack() {
    let pack = pack("values").await;
    let with = async |command: &str, params: Value| {
        let ended = Caller::new(&pack, "values.nothing", json!({}), 4)
            .with(|request| {
                request.command = command.into();
                request.params = params;
            })
            .run()
            .await;
        (ended.code(), ended.failure().message.clone())
    };
    let map = |entries: &[(&str, Value)]| Value::Map(entries.iter().map(|(name, value)| ((*name).into(), value.clone())).collect());
    let bad = |text: &str| (Code::BadParams, text.to_owned());
    assert_eq!(with("values.same_u8", map(&[])).await, bad("`params.value`: is missing; u8 was expected"));
    assert_eq!(with("values.same_u8", map(&[("value", Value::Int(256))])).await, bad("`params.value`: 256 is outside 0 to 255 (u8)"));
    assert_eq!(with("values.same_u8", map(&[("value", "1".into())])).await, bad("`params.value`: u8 was expected, found text"));
    assert_eq!(with("values.same_u8", map(&[("valeu", Value::Int(1))])).await.0, Code::BadParams);
    assert_eq!(with("values.same_bytes", map(&[("value", Value::Bytes(vec![0; (64 << 10) + 1]))])).await.0, Code::BadParams);
    assert_eq!(with("values.same_nothing", map(&[])).await.0, Code::UnknownCommand);
    assert_eq!(with("values.nothing", Value::Null).await.0, Code::BadParams);
}

#[tokio::test]
async fn sixty_four_kibibytes_cross_and_large_results_are_told_to_stream() {
    let echo = pack("echo").await;
    let most = vec![0xab; 64 << 10];
    let ended = Caller::new(&echo, "echo.say", json!({"text": ""}), 4)
        .with(|request| {
            request.command = "echo.bytes".into();
            request.params = Value::Map(vec![("data".into(), Value::Bytes(most.clone()))]);
        })
        .run()
        .await;
    assert_eq!(ended.value(), &Value::Bytes(most));
}

#[tokio::test]
async fn a_typed_list_of_records_is_read_as_the_commands_type_says() {
    let list = gives("devices", "devices.four", json!({})).await;
    assert_eq!(list.as_array().map(Vec::len), Some(4));
    assert_eq!(list[3]["pci_address"], json!("00000000:03:00.0"));
    assert_eq!(list[0]["memory_total"], json!(150_754_820_096u64));
}
