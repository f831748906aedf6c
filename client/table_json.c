#include "client/field.h"
#include "client/json_out.h"
#include "client/sweep.h"
#include "client/table.h"

#include <math.h>

static json_t *number_of(double value, bool is_whole)
{
	if (isnan(value))
		return json_null();
	return is_whole ? json_integer((json_int_t)value) : json_real(value);
}

static void add_range(json_t *object, const struct sk_table *table,
		      const struct sk_measure *measure, const struct sk_field *field)
{
	static const struct {
		enum sk_statistic statistic;
		const char *suffix;
	} ends[] = {{SK_LEAST, "min"}, {SK_MOST, "max"}};
	char name[64];

	for (unsigned i = 0; i < 2; i++) {
		double value = sk_measure_value(measure, table->subject, field->quantity,
						ends[i].statistic);
		snprintf(name, sizeof name, "%s_%s", field->name, ends[i].suffix);
		json_object_set_new(object, name, number_of(value, field->is_whole));
	}
}

/* By how much each quantity differs from the dense one's, in %. */
static json_t *changes_of(const struct sk_table *table, const struct sk_measure *measure)
{
	const struct sk_measure *baseline = sk_table_baseline(table);
	json_t *changes = json_object();

	if (!baseline || baseline == measure) {
		json_decref(changes);
		return json_null();
	}
	for (const struct sk_field *field = sk_fields; field->label; field++) {
		if (field->name)
			json_object_set_new(
				changes, field->name,
				number_of(sk_measure_change(measure, baseline, table->subject,
							    field->quantity),
					  false));
	}
	return changes;
}

static json_t *run_of(const struct sk_table *table, const struct sk_measure *measure)
{
	const struct streamkv_policy *p = &measure->policy;
	bool is_dense = p->mode == STREAMKV_DENSE;
	const struct {
		const char *name;
		int64_t value;
	} numbers[] = {
		{"sink", p->sink},
		{"window", p->window},
		{"slack", p->slack},
		{"capacity", sk_sweep_capacity(p)},
	};

	json_t *object = json_object();
	json_object_set_new(object, "mode", json_string(streamkv_mode_name(p->mode)));
	for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
		json_object_set_new(object, numbers[i].name,
				    is_dense ? json_null() : json_integer(numbers[i].value));
	json_object_set_new(object, "tokens", json_integer((json_int_t)measure->scores.n_tokens));
	json_object_set_new(object, "timed_runs", json_integer(measure->n_timed));
	for (const struct sk_field *field = sk_fields; field->label; field++) {
		if (!field->name)
			continue;
		json_object_set_new(object, field->name,
				    number_of(sk_measure_value(measure, table->subject,
							       field->quantity, SK_MEDIAN),
					      field->is_whole));
		if (field->has_range)
			add_range(object, table, measure, field);
	}
	json_object_set_new(object, "change_percent", changes_of(table, measure));
	return object;
}

int sk_table_print_json(const struct sk_table *table)
{
	const struct sk_subject *subject = table->subject;
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"tokens", subject->n_tokens},
		{"prompt_tokens", subject->has_speed ? subject->n_prompt : 0},
		{"generated_tokens", subject->has_speed ? subject->n_generate : 0},
		{"repeat", subject->has_speed ? subject->repeat : 0},
	};
	const struct {
		const char *name, *value;
	} strings[] = {
		{"model", subject->status.model},
		{"backend", subject->status.backend},
		{"file", subject->file},
	};

	json_t *object = json_object(), *runs = json_array();
	for (unsigned i = 0; i < sizeof strings / sizeof *strings; i++) {
		json_t *value = json_string(strings[i].value); /* a path may be no UTF-8 */
		json_object_set_new(object, strings[i].name, value ? value : json_null());
	}
	for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
		json_object_set_new(object, numbers[i].name,
				    json_integer((json_int_t)numbers[i].value));
	json_object_set_new(object, "is_whole", json_boolean(table->is_whole));
	for (unsigned i = 0; i < table->n_measures; i++) {
		if (sk_table_shows(&table->measures[i]))
			json_array_append_new(runs, run_of(table, &table->measures[i]));
	}
	json_object_set_new(object, "runs", runs);
	return sk_json_print(object, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
}
