/* tokenizer.json bytes through the reader; what opens then encodes the input's own bytes and gives them back. */
#include "driver.h"

#include "text/detokenizer.h"
#include "text/tokenizer_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void use(const struct sk_tokenizer *tokenizer, const uint8_t *text, size_t n_bytes,
		unsigned flags)
{
	uint8_t out[SK_DETOKENIZER_MOST];
	struct sk_detokenizer detokenizer;
	struct sk_ids ids = {0};
	int err = sk_tokenizer_encode(tokenizer, text, n_bytes, flags, &ids);

	if (err < 0 && (ids.n_ids || (err != -EILSEQ && err != -ENOMEM)))
		abort();
	sk_detokenizer_init(&detokenizer, tokenizer, true);
	for (size_t i = 0; i < ids.n_ids; i++) {
		if (ids.ids[i] < 0 || (uint32_t)ids.ids[i] >= sk_tokenizer_n_ids(tokenizer))
			abort();
		if (sk_detokenizer_push(&detokenizer, ids.ids[i], out) > sizeof out)
			abort();
	}
	if (sk_detokenizer_flush(&detokenizer, out) > 3)
		abort();
	sk_ids_finish(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	struct sk_tokenizer *tokenizer;
	struct sk_diag diag = {""};
	if (sk_tokenizer_open_json_memory((const char *)bytes, n_bytes, "input", &tokenizer,
					  &diag) < 0) {
		if (strncmp(diag.text, "input: ", 7) != 0)
			abort(); /* every refusal has its sentence */
		return 0;
	}
	size_t n_most = n_bytes < 512 ? n_bytes : 512;
	use(tokenizer, bytes, n_most, SK_ENCODE_BOS);
	use(tokenizer, bytes + n_bytes - n_most, n_most, SK_ENCODE_PLAIN | SK_ENCODE_GOES_ON);
	use(tokenizer, (const uint8_t *)"ab ab<s> 11-a\xe4\xbd\xa0\xff", 17, 0);
	sk_tokenizer_close(tokenizer);
	return 0;
}

size_t sk_fuzz_seed(unsigned index, uint8_t *out, size_t room)
{
	static const char *const seeds[] = {
		"{\"added_tokens\":[{\"id\":8,\"content\":\"<s>\",\"special\":true,\"lstrip\":true,"
		"\"rstrip\":true},{\"id\":10,\"content\":\"-\",\"single_word\":true,\"normalized\":"
		"true}],"
		"\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
		"\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-+|1(?=1)\"},"
		"\"behavior\":\"MergedWithNext\",\"invert\":false},{\"type\":\"Digits\","
		"\"individual_digits\":true},{\"type\":\"ByteLevel\",\"use_regex\":true}]},"
		"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
		"{\"id\":\"<s>\"}}]},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,"
		"\"\\u0120\":2,\"ab\":3,\"\\u0120ab\":4,\"1\":6},\"merges\":[\"a b\","
		"[\"\\u0120\",\"ab\"]]}}",
		"{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true}],"
		"\"normalizer\":"
		"{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
		"\"\xe2\x96\x81\"},"
		"{\"type\":\"Replace\",\"pattern\":{\"String\":\" "
		"\"},\"content\":\"\xe2\x96\x81\"}]},"
		"\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,"
		"\"byte_fallback\":true,\"vocab\":{\"<unk>\":0,\"<0xE4>\":1,\"<0xBD>\":2,\"<0xA0>"
		"\":3,"
		"\"\xe2\x96\x81\":4,\"a\":5,\"\xe2\x96\x81"
		"a\":6},\"merges\":[\"\xe2\x96\x81 a\"]}}",
		"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"first\",\"split\":"
		"false},"
		"\"model\":{\"ignore_merges\":true,\"vocab\":{\"\xe2\x96\x81\":0,\"ab\":1},"
		"\"merges\":[]}}",
	};
	if (index >= sizeof seeds / sizeof *seeds || strlen(seeds[index]) > room)
		return 0;
	memcpy(out, seeds[index], strlen(seeds[index]));
	return strlen(seeds[index]);
}
