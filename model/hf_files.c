/* The weight files of a Hugging Face directory: model.safetensors, or the shards that
 * model.safetensors.index.json names. The index must agree with the shards, tensor by tensor.
 */
#include "model/model_impl.h"

#include "base/cleanup.h"
#include "model/printable.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_SHARDS = 4096 };

static bool is_wanted(const char *name)
{
	return !sk_name_is_buffer(name);
}

static int join(const struct sk_model *model, const char *file, char **ret_path,
		struct sk_diag *diag)
{
	if (asprintf(ret_path, "%s/%s", model->path, file) < 0) {
		*ret_path = NULL;
		return sk_diag_fail(diag, ENOMEM, "%s: no memory to open it", model->path);
	}
	return 0;
}

/* Whether the directory has the file; memory running out reads as no. */
static bool has_file(const struct sk_model *model, const char *file)
{
	sk_autofree char *path = NULL;
	return join(model, file, &path, NULL) == 0 && access(path, F_OK) == 0;
}

/* Opens one file into the next place of model->shards, which has room, and indexes its tensors. */
static int open_shard(struct sk_model *model, const char *file, struct sk_diag *diag)
{
	sk_autofree char *path = NULL;
	int r = join(model, file, &path, diag);
	if (r < 0)
		return r;
	struct sk_safetensors **shard = &model->shards[model->n_shards];
	r = sk_safetensors_open(path, is_wanted, shard, diag);
	if (r < 0)
		return r;
	model->n_shards++;
	for (size_t i = 0; i < sk_safetensors_n_tensors(*shard); i++) {
		r = sk_tensor_index_add(&model->index, sk_safetensors_tensor_at(*shard, i),
					sk_safetensors_path(*shard), diag);
		if (r < 0)
			return r;
	}
	return 0;
}

/* A shard lies beside the index: its name is a plain file name. */
static bool is_shard_name(const char *name)
{
	static const char ending[] = ".safetensors";
	size_t n = strlen(name), n_ending = sizeof ending - 1;
	return n > n_ending && n <= 255 && name[0] != '.' && !strchr(name, '/') &&
	       strcmp(name + n - n_ending, ending) == 0 && sk_name_is_good(name, n);
}

/* Both ways: what the index promises is in the named shard, and a shard has nothing else. */
static int check_agreement(const struct sk_model *model, const json_t *map, const char *source,
			   struct sk_diag *diag)
{
	const char *name;
	json_t *shard;
	size_t n_listed = 0;
	json_object_foreach ((json_t *)map, name, shard) {
		struct sk_printable words;
		if (!is_wanted(name))
			continue;
		n_listed++;
		const struct sk_tensor_entry *entry = sk_tensor_index_find(&model->index, name);
		const char *file = entry ? strrchr(entry->source, '/') : NULL;
		if (!file || strcmp(file + 1, json_string_value(shard)) != 0)
			return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' is not in %s as listed",
					    source, sk_printable(&words, name, strlen(name)),
					    json_string_value(shard));
	}
	/* The names are distinct and all found, so fewer than there are means one is not listed. */
	if (n_listed == model->index.n_entries)
		return 0;
	for (size_t i = 0; i < model->index.n_entries; i++) {
		const struct sk_tensor_entry *entry = &model->index.entries[i];
		if (!json_object_get(map, entry->tensor->name))
			return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' of %s is not listed",
					    source, entry->tensor->name, entry->source);
	}
	return 0;
}

static int open_shards(struct sk_model *model, const char *source, const json_t *map,
		       struct sk_diag *diag)
{
	/* The set of shards, as the keys of an object: a shard is named once for each tensor. */
	sk_autojson json_t *set = json_object();
	const char *name, *shard;
	json_t *value;
	int r;

	json_object_foreach ((json_t *)map, name, value) {
		struct sk_printable words, tensor;
		shard = json_string_value(value);
		if (!shard || !is_shard_name(shard))
			return sk_diag_fail(diag, EINVAL,
					    "%s: tensor '%s' is put into '%s', which is no "
					    ".safetensors file beside it",
					    source, sk_printable(&tensor, name, strlen(name)),
					    shard ? sk_printable(&words, shard, strlen(shard))
						  : "");
		if (json_object_set_new(set, shard, json_true()) < 0)
			return sk_diag_fail(diag, ENOMEM, "%s: no memory for its shards", source);
	}
	size_t n_shards = json_object_size(set);
	if (n_shards == 0 || n_shards > MAX_SHARDS)
		return sk_diag_fail(diag, EINVAL, "%s: lists %zu shards", source, n_shards);
	model->shards = calloc(n_shards, sizeof(struct sk_safetensors *));
	if (!model->shards)
		return sk_diag_fail(diag, ENOMEM, "%s: no memory for its shards", source);
	json_object_foreach (set, shard, value) {
		r = open_shard(model, shard, diag);
		if (r < 0)
			return r;
	}
	r = sk_tensor_index_seal(&model->index, diag);
	return r < 0 ? r : check_agreement(model, map, source, diag);
}

static int open_indexed(struct sk_model *model, const char *index_file, struct sk_diag *diag)
{
	sk_autofree char *source = NULL;
	sk_autojson json_t *json = NULL;
	int r = join(model, index_file, &source, diag);
	if (r < 0)
		return r;
	r = sk_json_parse_file(source, &json, diag);
	if (r < 0)
		return r;
	const json_t *map = json_object_get(json, "weight_map");
	if (!json_is_object(map))
		return sk_diag_fail(diag, EINVAL, "%s: has no 'weight_map'", source);
	return open_shards(model, source, map, diag);
}

int sk_hf_files_open(struct sk_model *model, struct sk_diag *diag)
{
	static const char single[] = "model.safetensors",
			  indexed[] = "model.safetensors.index.json";

	if (has_file(model, single)) {
		model->shards = calloc(1, sizeof(struct sk_safetensors *));
		if (!model->shards)
			return sk_diag_fail(diag, ENOMEM, "%s: no memory to open it", model->path);
		int r = open_shard(model, single, diag);
		return r < 0 ? r : sk_tensor_index_seal(&model->index, diag);
	}
	if (has_file(model, indexed))
		return open_indexed(model, indexed, diag);
	if (has_file(model, "pytorch_model.bin") || has_file(model, "pytorch_model.bin.index.json"))
		return sk_diag_fail(
			diag, ENOENT,
			"%s: has pytorch_model.bin, which is not read here; convert it with "
			"save_pretrained() of transformers, which writes %s",
			model->path, single);
	return sk_diag_fail(diag, ENOENT, "%s: has neither %s nor %s", model->path, single,
			    indexed);
}
